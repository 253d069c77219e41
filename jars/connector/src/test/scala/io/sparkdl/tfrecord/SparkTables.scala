package io.sparkdl.tfrecord

import java.nio.file.{Files, Path}

import org.apache.hadoop.fs.FileUtil
import org.apache.spark.sql.{DataFrame, SparkSession}
import org.apache.spark.sql.functions._
import org.scalatest.{BeforeAndAfterAll, Suite}

/** A session, which all suites of the JVM share, and a folder of its own for each suite. */
trait SparkTables extends BeforeAndAfterAll { this: Suite =>

  protected lazy val spark: SparkSession = SparkTables.session

  protected val folder: Path = Files.createTempDirectory("tfrecord")

  // whatever can be: a task of a job that failed may still be writing
  override def afterAll(): Unit = FileUtil.fullyDelete(folder.toFile)

  protected def walk(path: Path): Seq[Path] = {
    val paths = Files.walk(path)
    try paths.toArray.toSeq.map(_.asInstanceOf[Path])
    finally paths.close()
  }

  protected def files(path: String): Seq[Path] =
    walk(folder.resolve(path)).filter(_.toString.endsWith(".tfrecord")).sortBy(_.toString)

  protected def at(name: String): String = folder.resolve(name).toString

  protected def table(rows: Long): DataFrame = spark
    .range(0, rows, 1, 2)
    .select(
      col("id"),
      (col("id") % 3).cast("int").as("kind"),
      concat(lit("row "), col("id")).as("text"),
      array(col("id").cast("float"), lit(0.5f)).as("xs")
    )

  protected val tableSchema = "id bigint, kind int, text string, xs array<float>"

  protected def read(path: String, schema: String = tableSchema): DataFrame =
    spark.read.schema(schema).format("tfrecord").load(at(path))

  protected def causes(error: Throwable): Seq[Throwable] =
    Iterator.iterate(error)(_.getCause).takeWhile(_ != null).toList

  /** What our exception says that `body` ends with. */
  protected def reason(body: => Any): String = {
    val error = intercept[Exception](body)
    causes(error).collectFirst { case cause: TFRecordException => cause.getMessage }.getOrElse(throw error)
  }

  /** Replaces a file, and the checksum of Hadoop that would notice first. */
  protected def rewrite(file: Path, bytes: Array[Byte]): Unit = {
    Files.write(file, bytes)
    Files.deleteIfExists(file.resolveSibling(s".${file.getFileName}.crc"))
  }

  protected def sideFile(name: String): SideFile = {
    val path = folder.resolve(name).resolve(SideFile.Name)
    SideFile.parse(new String(Files.readAllBytes(path), "UTF-8"), new org.apache.hadoop.fs.Path(path.toString))
  }
}

object SparkTables {
  private lazy val session: SparkSession = SparkSession
    .builder()
    .master("local[2]")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.sql.warehouse.dir", Files.createTempDirectory("warehouse").toString)
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .getOrCreate()
}
