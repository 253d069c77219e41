package io.sparkdl.tfrecord

import java.nio.file.{Files, Path}
import java.util.Arrays

import org.apache.spark.sql.{DataFrame, Row, SparkSession}
import org.apache.spark.sql.functions._
import org.apache.spark.sql.types._
import org.scalatest.BeforeAndAfterAll
import org.scalatest.funsuite.AnyFunSuite

class TFRecordFileFormatSuite extends AnyFunSuite with BeforeAndAfterAll {

  private lazy val spark = SparkSession
    .builder()
    .master("local[2]")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .getOrCreate()

  private val folder = Files.createTempDirectory("tfrecord")

  override def afterAll(): Unit = {
    spark.stop()
    walk(folder).reverse.foreach(path => Files.delete(path))
  }

  private def walk(path: Path): Seq[Path] = {
    val paths = Files.walk(path)
    try paths.toArray.toSeq.map(_.asInstanceOf[Path])
    finally paths.close()
  }

  private def files(path: String): Seq[Path] = walk(folder.resolve(path)).filter(_.toString.endsWith(".tfrecord"))

  private def at(name: String): String = folder.resolve(name).toString

  private def table(rows: Long): DataFrame = spark
    .range(0, rows, 1, 2)
    .select(
      col("id"),
      (col("id") % 3).cast("int").as("kind"),
      concat(lit("row "), col("id")).as("text"),
      array(col("id").cast("float"), lit(0.5f)).as("xs")
    )

  private val tableSchema = "id bigint, kind int, text string, xs array<float>"

  private def read(path: String, schema: String = tableSchema): DataFrame =
    spark.read.schema(schema).format("tfrecord").load(at(path))

  private def causes(error: Throwable): Seq[Throwable] = Iterator.iterate(error)(_.getCause).takeWhile(_ != null).toList

  private def reason(body: => Any): String = {
    val error = intercept[Exception](body)
    causes(error).collectFirst { case cause: TFRecordException => cause.getMessage }.getOrElse(throw error)
  }

  for (format <- Seq("tfrecord", "tfrecords")) {
    test(s"format $format writes and reads") {
      table(1000).write.format(format).save(at(s"by_$format"))
      val back = spark.read.schema(tableSchema).format(format).load(at(s"by_$format"))
      assert(back.orderBy("id").collect().toSeq == table(1000).orderBy("id").collect().toSeq)
      assert(files(s"by_$format").size == 2)
    }
  }

  test("partition folders, pruning, filters, count and _metadata") {
    table(30).write.partitionBy("kind").format("tfrecord").save(at("folders"))
    val back = read("folders")
    assert(back.count() == 30)
    assert(back.where("kind = 1").select("text").collect().map(_.getString(0)).toSet ==
      (0 until 30).filter(_ % 3 == 1).map(i => s"row $i").toSet)
    assert(back.select("kind", "id").collect().forall(row => row.getInt(0) == row.getLong(1) % 3))
    val names = back.select("_metadata.file_name", "id").collect().map(_.getString(0)).toSet
    assert(names == files("folders").map(_.getFileName.toString).toSet)
  }

  test("maxRecordsPerFile, append and an empty table") {
    table(10).coalesce(1).write.option("maxRecordsPerFile", 4).format("tfrecord").save(at("many"))
    assert(files("many").size == 3)
    table(10).write.mode("append").format("tfrecord").save(at("many"))
    assert(read("many").count() == 20)
    table(0).write.format("tfrecord").save(at("empty"))
    assert(read("empty").collect().isEmpty)
  }

  test("a type that a TFRecord cannot hold is refused before a task runs, for writing and reading") {
    val tasks = spark.range(1).select(col("id"), raise_error(lit("a task ran")).cast("double").as("x"))
    assert(
      reason(tasks.write.format("tfrecord").save(at("double"))) ==
        "Cannot write column `x` (double) as TFRecord: it has no double; cast to float (spark_dl.prepare does this)."
    )
    table(3).write.format("tfrecord").save(at("types"))
    assert(reason(read("types", "id bigint, x decimal(5,2)").collect()).startsWith("Cannot read column `x` (decimal(5,2))"))
  }

  test("reading without a schema and options that are not supported are refused") {
    assert(reason(spark.read.format("tfrecord").load(at("types"))).startsWith("Cannot infer the schema of TFRecord files."))
    assert(reason(table(1).write.option("codec", "gzip").format("tfrecord").save(at("gzip"))).contains("codec=gzip"))
    assert(reason(read("types").sparkSession.read.schema(tableSchema).option("recordType", "ByteArray")
      .format("tfrecord").load(at("types")).collect()).contains("recordType=ByteArray"))
  }

  test("a null names column and partition, and the table is not committed") {
    val nulls = spark.range(0, 10, 1, 5).select(col("id"), when(col("id") =!= 7, col("id")).as("x"))
    assert(reason(nulls.write.format("tfrecord").save(at("nulls"))).startsWith("Cannot write null in column `x` as TFRecord (partition 3)"))
    assert(files("nulls").isEmpty)
  }

  test("damage names file, record and offset, also when rows are only counted") {
    table(10).coalesce(1).write.format("tfrecord").save(at("damaged"))
    val file = files("damaged").head
    val bytes = Files.readAllBytes(file)
    val second = 16 + LittleEndian.getLong(bytes, 0).toInt
    bytes(second + 20) = (bytes(second + 20) ^ 1).toByte
    Files.write(file, bytes)
    Files.delete(file.resolveSibling(s".${file.getFileName}.crc"))
    for (query <- Seq(read("damaged").select("id"), read("damaged").groupBy().count())) {
      val message = reason(query.collect())
      assert(message.startsWith(s"Cannot read TFRecord file file:$file: record 1 (counted from 0) at byte $second: data CRC-32C"))
    }
  }

  test("a record of another schema names column, file, record and offset") {
    table(4).coalesce(1).write.format("tfrecord").save(at("other"))
    val message = reason(read("other", "text bigint").collect())
    assert(message.startsWith(s"Cannot read TFRecord file file:${files("other").head}: record 0 (counted from 0) at byte 0: "))
    assert(message.endsWith("column `text` (bigint) needs Int64List, the record has BytesList."))
  }

  test("both sources are one format") {
    assert(new TFRecordSource == new TFRecordsSource)
    assert(new TFRecordSource().hashCode == new TFRecordsSource().hashCode)
  }

  test("column names are keys as they are") {
    val odd = StructType(Seq(StructField("naïve, col.umn", LongType), StructField("日本", StringType)))
    val rows = Seq(Row(1L, "a"), Row(2L, "b"))
    spark.createDataFrame(Arrays.asList(rows: _*), odd).write.format("tfrecord").save(at("names"))
    assert(spark.read.schema(odd).format("tfrecord").load(at("names")).collect().toSet == rows.toSet)
  }
}
