package io.sparkdl.tfrecord

import java.io.IOException
import java.net.URI
import java.nio.file.Files

import org.apache.hadoop.fs.{FileStatus, ParentNotDirectoryException, Path, RawLocalFileSystem}
import org.apache.hadoop.mapreduce.{JobContext, OutputCommitter, TaskAttemptContext}
import org.scalatest.funsuite.AnyFunSuite

/** Where nothing can be renamed, with a committer that writes files where they stay. */
class ObjectStoreSuite extends AnyFunSuite with SparkTables {

  private val committer = "spark.sql.sources.outputCommitterClass"

  override def beforeAll(): Unit =
    spark.sparkContext.hadoopConfiguration.set("fs.fixed.impl", classOf[FixedFileSystem].getName)

  private def there(name: String): String = s"fixed:${at(name)}"

  private def ids(rows: org.apache.spark.sql.DataFrame): Seq[Long] =
    rows.select("id").collect().map(_.getLong(0)).sorted.toSeq

  test("tables are written without a rename, and the side-files of the tasks tell what is gone") {
    spark.conf.set(committer, classOf[DirectCommitter].getName)
    try {
      table(30).write.partitionBy("kind").format("tfrecord").save(there("table"))
      table(30).write.mode("append").partitionBy("kind").format("tfrecord").save(there("table"))
    } finally spark.conf.unset(committer)
    val back = spark.read.format("tfrecord").load(there("table"))
    assert(ids(back) == (0L until 30L).flatMap(id => Seq(id, id)))
    val file = files("table").head
    val bytes = Files.readAllBytes(file)
    Files.write(file, bytes.drop(Examples.unframe(bytes).head.length + 16))
    assert(reason(back.collect()).contains("_tfrecord_schema.json says"))
  }

  test("Hadoop's own committer cannot work there, and says so") {
    val error = intercept[Exception](table(3).write.format("tfrecord").save(there("renamed")))
    assert(causes(error).exists(cause => String.valueOf(cause.getMessage).contains("nothing can be renamed")))
  }

  test("one file is read by its path, where a file is no folder and that is an error") {
    table(10).coalesce(1).write.format("tfrecord").save(at("one"))
    val file = s"fixed:${files("one").head}"
    assert(ids(spark.read.format("tfrecord").load(file)) == (0L until 10L))
  }
}

/** Local disks on which nothing can be renamed, and which refuse a path below a file as HDFS does. */
class FixedFileSystem extends RawLocalFileSystem {
  override def getUri: URI = URI.create("fixed:///")

  override def rename(from: Path, to: Path): Boolean = throw new IOException(s"nothing can be renamed: $from")

  override def getFileStatus(path: Path): FileStatus = {
    val above = path.getParent
    if (above != null && pathToFile(above).isFile) throw new ParentNotDirectoryException(s"$above (is not a directory)")
    super.getFileStatus(path)
  }
}

/** Tasks write the table's files themselves. */
class DirectCommitter extends OutputCommitter {
  override def setupJob(job: JobContext): Unit = ()
  override def setupTask(task: TaskAttemptContext): Unit = ()
  override def needsTaskCommit(task: TaskAttemptContext): Boolean = false
  override def commitTask(task: TaskAttemptContext): Unit = ()
  override def abortTask(task: TaskAttemptContext): Unit = ()
}
