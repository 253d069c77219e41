package io.sparkdl.tfrecord

import java.nio.file.Files

import org.apache.hadoop.fs.LocalFileSystem
import org.apache.spark.sql.Row
import org.scalatest.funsuite.AnyFunSuite

/** What Spark's file source promises, with our side-file in the folder. */
class FileSourceSuite extends AnyFunSuite with SparkTables {

  private def ids(rows: org.apache.spark.sql.DataFrame): Seq[Long] = rows.select("id").collect().map(_.getLong(0)).sorted.toSeq

  test("the metadata columns of each file") {
    table(10).write.format("tfrecord").save(at("metadata"))
    val found = read("metadata").selectExpr("id", "_metadata.*").collect()
    assert(found.length == 10)
    val sizes = files("metadata").map(file => file.getFileName.toString -> Files.size(file)).toMap
    found.foreach { row =>
      val name = row.getAs[String]("file_name")
      assert(row.getAs[String]("file_path").endsWith(s"metadata/$name"))
      assert(row.getAs[Long]("file_size") == sizes(name))
      assert(row.getAs[Long]("file_block_start") == 0 && row.getAs[Long]("file_block_length") == sizes(name))
      assert(row.getAs[java.sql.Timestamp]("file_modification_time") != null)
    }
  }

  for (way <- Seq("conf", "option")) {
    test(s"ignoreMissingFiles, by $way") {
      table(10).write.format("tfrecord").save(at(s"missing_$way"))
      def load() = {
        val reader = spark.read.schema(tableSchema).format("tfrecord")
        (if (way == "option") reader.option("ignoreMissingFiles", true) else reader).load(at(s"missing_$way"))
      }
      if (way == "conf") spark.conf.set("spark.sql.files.ignoreMissingFiles", true)
      try {
        val listed = load()
        Files.delete(files(s"missing_$way").head)
        assert(ids(listed) == Seq(5, 6, 7, 8, 9))
        assert(ids(load()) == Seq(5, 6, 7, 8, 9))
      } finally spark.conf.unset("spark.sql.files.ignoreMissingFiles")
      assert(reason(read(s"missing_$way").collect()).contains("are missing"))
    }
  }

  test("overwriting some partitions leaves the side-file right for all") {
    table(30).write.partitionBy("kind").format("tfrecord").save(at("dynamic"))
    val other = table(30).where("kind = 1").selectExpr("id + 100 as id", "kind", "text", "xs")
    other.write.mode("overwrite").option("partitionOverwriteMode", "dynamic").partitionBy("kind").format("tfrecord")
      .save(at("dynamic"))
    val expected = ((0 until 30).filter(_ % 3 != 1) ++ (0 until 30).filter(_ % 3 == 1).map(_ + 100)).map(_.toLong).sorted
    assert(ids(spark.read.format("tfrecord").load(at("dynamic"))) == expected)
    val changed = files("dynamic").find(_.toString.contains("kind=1")).get
    rewrite(changed, Files.readAllBytes(changed).dropRight(Examples.unframe(Files.readAllBytes(changed)).last.length + 16))
    assert(reason(spark.read.format("tfrecord").load(at("dynamic")).collect()).contains("_tfrecord_schema.json says"))
  }

  test("partition folders of any name") {
    val rows = spark.range(6).selectExpr("id", "elt(1 + id % 3, 'a b', 'x/y=z', '50%:ü') as kind")
    rows.write.partitionBy("kind").format("tfrecord").save(at("names"))
    assert(sideFile("names").files.size == files("names").size)
    val back = spark.read.format("tfrecord").load(at("names"))
    assert(back.orderBy("id").collect().toSeq == rows.collect().toSeq)
    val file = files("names").head
    rewrite(file, Array.emptyByteArray)
    assert(reason(back.collect()).contains("it has 0 bytes"))
  }

  test("an empty table with partition folders has its columns") {
    table(0).write.partitionBy("kind").format("tfrecord").save(at("hollow"))
    val back = spark.read.schema(tableSchema).format("tfrecord").load(at("hollow"))
    assert(back.count() == 0)
  }

  test("a table of the catalog is written, appended to and read") {
    spark.sql("CREATE TABLE things (id bigint, text string) USING tfrecord OPTIONS (rowsPerRecord 3)")
    try {
      spark.sql("INSERT INTO things SELECT id, concat('row ', id) FROM range(10)")
      spark.sql("INSERT INTO things SELECT id, 'more' FROM range(10, 12)")
      assert(ids(spark.table("things")) == (0L until 12L))
      assert(spark.sql("SELECT text FROM things WHERE id = 11").collect().toSeq == Seq(Row("more")))
      spark.sql("INSERT OVERWRITE things SELECT id, 'new' FROM range(2)")
      assert(ids(spark.table("things")) == Seq(0, 1))
    } finally spark.sql("DROP TABLE things")
  }

  test("data files go without the checksums that Hadoop keeps beside files on local disks, and need none") {
    table(10).write.format("tfrecord").save(at("plain"))
    for (file <- files("plain")) {
      val crc = file.resolveSibling(s".${file.getFileName}.crc")
      assert(!Files.exists(crc))
      Files.write(crc, "of another file".getBytes)
    }
    assert(ids(spark.read.format("tfrecord").load(at("plain"))) == (0L until 10L))
    val others = new LocalFileSystem {}
    others.initialize(folder.toUri, spark.sessionState.newHadoopConf())
    assert(RawFiles.of(others) eq others)
  }

  test("a glob, a single file and several folders are read") {
    table(10).write.format("tfrecord").save(at("one"))
    table(10).write.format("tfrecord").save(at("two"))
    val reader = spark.read.schema(tableSchema).format("tfrecord")
    assert(reader.load(at("one"), at("two")).count() == 20)
    assert(spark.read.schema(tableSchema).format("tfrecord").load(at("o*")).count() == 10)
    assert(spark.read.schema(tableSchema).format("tfrecord").load(files("one").head.toString).count() == 5)
  }

  test("with another output committer readers use the side-files of the tasks") {
    spark.conf.set("spark.sql.sources.outputCommitterClass", "org.apache.hadoop.mapreduce.lib.output.FileOutputCommitter")
    try table(10).write.partitionBy("kind").format("tfrecord").save(at("foreign"))
    finally spark.conf.unset("spark.sql.sources.outputCommitterClass")
    assert(!Files.exists(folder.resolve("foreign").resolve(SideFile.Name)))
    val back = spark.read.schema(tableSchema).format("tfrecord").load(at("foreign"))
    assert(back.count() == 10)
    val file = files("foreign").head
    val bytes = Files.readAllBytes(file)
    rewrite(file, bytes.drop(Examples.unframe(bytes).head.length + 16))
    assert(reason(back.collect()).contains("_tfrecord_schema.json says"))
  }
}
