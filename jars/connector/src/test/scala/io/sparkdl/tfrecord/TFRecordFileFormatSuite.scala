package io.sparkdl.tfrecord

import java.nio.file.Files
import java.util.Arrays

import org.apache.spark.scheduler.{SparkListener, SparkListenerStageCompleted}
import org.apache.spark.sql.{AnalysisException, DataFrame, Row}
import org.apache.spark.sql.functions._
import org.apache.spark.sql.types._
import org.scalatest.concurrent.Eventually._
import org.scalatest.funsuite.AnyFunSuite
import org.scalatest.time.SpanSugar._

class TFRecordFileFormatSuite extends AnyFunSuite with SparkTables {

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
    assert(reason(tasks.write.format("tfrecord").save(at("double"))).startsWith("Cannot write column `x` (double) as TFRecord"))
    table(3).write.format("tfrecord").save(at("types"))
    assert(reason(read("types", "id bigint, x decimal(5,2)").collect()).startsWith("Cannot read column `x` (decimal(5,2))"))
  }

  test("a null names column and partition, and the table is not committed") {
    val nulls = spark.range(0, 10, 1, 5).select(col("id"), when(col("id") =!= 7, col("id")).as("x"))
    assert(reason(nulls.write.format("tfrecord").save(at("nulls"))).startsWith("Cannot write null in column `x` as TFRecord (partition 3)"))
    // a task that ran beside it may only now be told to stop, and still open its file in Spark's folder
    assert(files("nulls").forall(_.startsWith(folder.resolve("nulls/_temporary"))))
  }

  test("damage names file, record and offset, also when rows are only counted") {
    table(10).coalesce(1).write.format("tfrecord").save(at("damaged"))
    val file = files("damaged").head
    val bytes = Files.readAllBytes(file)
    val second = 16 + LittleEndian.getLong(bytes, 0).toInt
    bytes(second + 20) = (bytes(second + 20) ^ 1).toByte
    rewrite(file, bytes)
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

  private lazy val wide: DataFrame = table(1000).select(
    col("*"),
    (col("id") / 8).as("double"),
    (col("id") / 4).cast("decimal(12,2)").as("decimal"),
    struct(col("id").as("a"), array(col("text")).as("b")).as("s"),
    array(array(col("id"), lit(1L)), array(lit(2L), lit(3L)), array(lit(4L), lit(5L))).as("matrix"),
    array(array(col("text"), lit(""))).as("names"),
    array(array(col("id") / 8), array(lit(0.5))).as("halves"),
    expr("sequence(0, id % 4)").as("ragged"),
    expr("filter(array(text, '', 'x'), (t, i) -> i < id % 3)").as("texts"),
    expr("timestamp_micros(id)").as("at"),
    expr("date_from_unix_date(cast(id as int))").as("day"),
    expr("id % 2 = 0").as("flag"),
    expr("encode(text, 'utf-8')").as("bytes")
  )

  private val wideOptions = Map("allowLossy" -> "true", "shapes" -> """{"matrix": [3, 2], "names": [1, 2], "halves": [2, 1], "xs": [2]}""")

  for (rowsPerRecord <- Seq(1, 7, 100000)) {
    test(s"every type comes back as the same rows, without being told, $rowsPerRecord a record") {
      val path = at(s"wide$rowsPerRecord")
      wide.write.options(wideOptions).option("rowsPerRecord", rowsPerRecord).format("tfrecord").save(path)
      val back = spark.read.format("tfrecord").load(path)
      assert(back.schema.map(field => field.name -> field.dataType.simpleString) ==
        wide.schema.map(field => field.name -> field.dataType.simpleString))
      assert(back.orderBy("id").collect().toSeq == wide.orderBy("id").collect().toSeq)
      assert(back.count() == 1000)
      assert(back.select("ragged").collect().map(_.getSeq[Int](0).size).sum == wide.select("ragged").collect().map(_.getSeq[Int](0).size).sum)
    }
  }

  test("packs are read by option too, and a file of 1000 rows has the records that it should") {
    table(1000).coalesce(1).write.option("rowsPerRecord", 300).format("tfrecord").save(at("packs"))
    val file = files("packs").head
    assert(Examples.unframe(Files.readAllBytes(file)).size == 4)
    val read = spark.read.schema(tableSchema).option("sideFile", false).option("rowsPerRecord", 300).format("tfrecord")
    assert(read.load(at("packs")).orderBy("id").collect().toSeq == table(1000).orderBy("id").collect().toSeq)
    assert(reason(spark.read.schema(tableSchema).option("sideFile", false).format("tfrecord").load(at("packs")).collect())
      .contains("needs one value, the record has 300"))
  }

  test("SequenceExample: arrays of arrays are feature lists") {
    val rows = spark.range(20).selectExpr(
      "id", "transform(sequence(0, id % 3), i -> sequence(i, i + id % 2)) as steps",
      "filter(array(array('a', 'b'), array('c')), (t, i) -> i < id % 3) as words")
    rows.write.option("recordType", "SequenceExample").format("tfrecord").save(at("sequences"))
    val back = spark.read.format("tfrecord").load(at("sequences"))
    assert(back.orderBy("id").collect().toSeq == rows.collect().toSeq)
    assert(back.select("words", "id").orderBy("id").collect().toSeq == rows.select("words", "id").collect().toSeq)
    val inferred = spark.read.option("recordType", "SequenceExample").option("sideFile", false).format("tfrecord").load(at("sequences"))
    assert(inferred.schema.simpleString == "struct<id:bigint,steps:array<array<bigint>>,words:array<array<string>>>")
  }

  test("ByteArray: a record is the bytes of one column") {
    val rows = spark.range(10).selectExpr("encode(concat('row ', id), 'utf-8') as byteArray")
    rows.write.option("recordType", "ByteArray").format("tfrecords").save(at("bytes"))
    val back = spark.read.option("recordType", "ByteArray").option("sideFile", false).format("tfrecords").load(at("bytes"))
    assert(back.selectExpr("decode(byteArray, 'utf-8')").collect().map(_.getString(0)).toSet ==
      (0 until 10).map(i => s"row $i").toSet)
    assert(back.count() == 10)
    assert(reason(table(1).write.option("recordType", "ByteArray").format("tfrecord").save(at("bytes2")))
      .startsWith("recordType=ByteArray needs a table of one binary column"))
  }

  for (codec <- Seq("gzip", "deflate", "zstd", "org.apache.hadoop.io.compress.GzipCodec")) {
    test(s"codec $codec") {
      table(1000).write.option("codec", codec).format("tfrecord").save(at(codec))
      val back = spark.read.format("tfrecord").load(at(codec))
      assert(back.orderBy("id").collect().toSeq == table(1000).orderBy("id").collect().toSeq)
      val written = walk(folder.resolve(codec)).filter(_.getFileName.toString.startsWith("part-"))
      assert(written.forall(file => file.toString.endsWith(".tfrecord" + Codec.named(codec).get.extension)))
      val bytes = Files.readAllBytes(written.head)
      rewrite(written.head, bytes.dropRight(bytes.length / 2))
      assert(reason(back.collect()).contains("bytes, _tfrecord_schema.json says"))
    }
  }

  test("nulls=omit leaves features out and reads them as null; empty values stay what they are") {
    val rows = spark.range(30).selectExpr(
      "id", "if(id % 2 = 0, null, id) as x", "if(id % 3 = 0, null, '') as text",
      "if(id % 5 = 0, null, cast(array() as array<float>)) as xs", "if(id % 7 = 0, null, struct(id, '' as t)) as s")
    rows.write.option("nulls", "omit").format("tfrecord").save(at("omit"))
    assert(spark.read.format("tfrecord").load(at("omit")).orderBy("id").collect().toSeq == rows.collect().toSeq)
    val message = reason(
      spark.read.schema("x bigint").option("nulls", "error").format("tfrecord").load(at("omit")).collect())
    assert(message.contains("column `x` (bigint) is not in the record"))
  }

  test("what is appended must be written alike; the side-file grows with it") {
    table(10).write.option("rowsPerRecord", 4).format("tfrecord").save(at("append"))
    table(10).write.mode("append").option("rowsPerRecord", 4).format("tfrecord").save(at("append"))
    assert(spark.read.format("tfrecord").load(at("append")).count() == 20)
    assert(reason(table(10).write.mode("append").format("tfrecord").save(at("append"))).startsWith("Cannot append to"))
    assert(reason(spark.range(3).write.mode("append").option("rowsPerRecord", 4).format("tfrecord").save(at("append")))
      .startsWith("Cannot append to"))
    table(5).write.mode("overwrite").format("tfrecord").save(at("append"))
    assert(spark.read.format("tfrecord").load(at("append")).count() == 5)
    table(9).write.mode("ignore").format("tfrecord").save(at("append"))
    intercept[AnalysisException](table(9).write.format("tfrecord").save(at("append")))
    assert(spark.read.format("tfrecord").load(at("append")).count() == 5)
  }

  test("the side-file knows each file, also in partition folders, and tells a record and a file that are gone") {
    table(30).write.partitionBy("kind").format("tfrecord").save(at("known"))
    assert(sideFile("known").files.size == files("known").size)
    assert(sideFile("known").files.values.map(_.rows).sum == 30)
    assert(!walk(folder.resolve("known")).exists(_.getFileName.toString.startsWith("_part-")))
    val file = files("known").head
    val bytes = Files.readAllBytes(file)
    val first = 16 + LittleEndian.getLong(bytes, 0).toInt
    // a task's files have the same name in each partition folder
    val name = folder.resolve("known").relativize(file).toString
    val facts = sideFile("known").files.values.find(_.path == name).get
    assert(facts.bytes == bytes.length)
    rewrite(file, bytes.drop(first))
    for (query <- Seq(read("known"), spark.read.format("tfrecord").load(file.getParent.toString))) {
      assert(reason(query.collect()).contains(s"it has ${bytes.length - first} bytes, _tfrecord_schema.json says ${bytes.length}"))
    }
    val rest = spark.read.schema(tableSchema).option("sideFile", false).format("tfrecord").load(at("known"))
    assert(rest.count() == 29)
    rewrite(file, bytes.slice(first, 2 * first) ++ bytes.drop(first))
    assert(reason(read("known").collect()).contains("CRC-32C in the segment at byte 0"))
    Files.delete(file)
    assert(reason(read("known").collect()).contains("1 of the files that _tfrecord_schema.json lists are missing"))
  }

  test("DROPMALFORMED leaves out what is damaged, and says how much") {
    table(10).coalesce(1).write.format("tfrecord").save(at("drop"))
    val file = files("drop").head
    val bytes = Files.readAllBytes(file)
    val size = 16 + LittleEndian.getLong(bytes, 0).toInt
    bytes(size + 20) = (bytes(size + 20) ^ 1).toByte // data of record 1
    bytes(5 * size + 1) = (bytes(5 * size + 1) ^ 1).toByte // length of record 5
    rewrite(file, bytes.dropRight(3)) // the tail of record 9
    val back = spark.read.schema(tableSchema).option("mode", "DROPMALFORMED").format("tfrecord").load(at("drop"))
    assert(back.collect().map(_.getLong(0)).toSet == Set(0L, 2L, 3L, 4L, 6L, 7L, 8L))
    val other = spark.read.schema("id float").option("mode", "DROPMALFORMED").format("tfrecord").load(at("drop"))
    assert(other.collect().isEmpty)
  }

  test("the number of records that DROPMALFORMED left out is in an accumulator of the stage") {
    table(10).coalesce(1).write.format("tfrecord").save(at("counted"))
    val file = files("counted").head
    val bytes = Files.readAllBytes(file)
    val size = 16 + LittleEndian.getLong(bytes, 0).toInt
    Seq(1, 4, 8).foreach(record => bytes(record * size + 20) = (bytes(record * size + 20) ^ 1).toByte)
    rewrite(file, bytes)
    val counts = new java.util.concurrent.ConcurrentLinkedQueue[String]
    val listener = new SparkListener {
      override def onStageCompleted(stage: SparkListenerStageCompleted): Unit =
        stage.stageInfo.accumulables.values
          .filter(_.name.contains("TFRecord: malformed records dropped"))
          .foreach(found => counts.add(found.value.get.toString))
    }
    spark.sparkContext.addSparkListener(listener)
    try {
      val back = spark.read.schema(tableSchema).option("mode", "DROPMALFORMED").format("tfrecord").load(at("counted"))
      assert(back.collect().map(_.getLong(0)).toSet == Set(0L, 2L, 3L, 5L, 6L, 7L, 9L))
      eventually(timeout(60.seconds))(assert(counts.toArray.toSeq == Seq("3")))
    } finally spark.sparkContext.removeSparkListener(listener)
  }

  test("a schema is inferred from a sample of all files: sorted columns, text or bytes by UTF-8") {
    val rows = spark.range(0, 100, 1, 4).selectExpr(
      "id as z", "cast(id as float) as f", "if(id < 99, encode('x', 'utf-8'), X'ff') as raw", "'ü' as text",
      "sequence(0, id % 3) as list")
    rows.write.option("sideFile", false).format("tfrecord").save(at("infer"))
    assert(!Files.exists(folder.resolve("infer").resolve(SideFile.Name)))
    val back = spark.read.format("tfrecord").load(at("infer"))
    assert(back.schema.simpleString ==
      "struct<f:float,list:array<bigint>,raw:binary,text:string,z:bigint>")
    assert(back.select("z", "list").orderBy("z").collect().toSeq == rows.select("z", "list").orderBy("z").collect().toSeq)
  }

  test("a task starts another file by shardSizeBytes") {
    table(1000).coalesce(1).write.option("shardSizeBytes", 10000).format("tfrecord").save(at("sizes"))
    assert(files("sizes").size > 3)
    assert(sideFile("sizes").files.values.map(_.rows).sum == 1000)
    assert(spark.read.format("tfrecord").load(at("sizes")).count() == 1000)
  }

  test("files are split, with and without the side-file") {
    spark.range(0, 300000, 1, 1).selectExpr("id", "repeat('x', 100) as text").write.format("tfrecord").save(at("split"))
    val file = files("split").head
    assert(sideFile("split").files.values.head.segments.size > 3)
    spark.conf.set("spark.sql.files.maxPartitionBytes", "4m")
    try {
      for (side <- Seq(true, false)) {
        val back = spark.read.schema("id bigint").option("sideFile", side).format("tfrecord").load(at("split"))
        assert(back.rdd.getNumPartitions > 5)
        assert(back.selectExpr("sum(id)", "count(*)").head() == Row(300000L * 299999 / 2, 300000L))
      }
      val bytes = Files.readAllBytes(file)
      bytes(bytes.length / 2) = (bytes(bytes.length / 2) ^ 8).toByte
      rewrite(file, bytes)
      for (side <- Seq(true, false)) {
        val back = spark.read.schema("id bigint").option("sideFile", side).format("tfrecord").load(at("split"))
        assert(reason(back.collect()).contains("CRC-32C"))
      }
    } finally spark.conf.unset("spark.sql.files.maxPartitionBytes")
  }

  test("vectors of Spark ML become floats and come back dense") {
    import org.apache.spark.ml.linalg.{Vector, Vectors}
    val schema = StructType(Seq(StructField("v", org.apache.spark.ml.linalg.SQLDataTypes.VectorType)))
    val rows = Seq(Row(Vectors.dense(1.5, -2)), Row(Vectors.sparse(3, Array(1), Array(4.0))), Row(Vectors.dense(Array.empty[Double])))
    val vectors = spark.createDataFrame(Arrays.asList(rows: _*), schema)
    assert(reason(vectors.write.format("tfrecord").save(at("vectors"))).contains("allowLossy"))
    vectors.coalesce(1).write.option("allowLossy", true).format("tfrecord").save(at("vectors"))
    val back = spark.read.format("tfrecord").load(at("vectors")).collect().map(_.getAs[Vector](0).toArray.toSeq)
    assert(back.toSeq == Seq(Seq(1.5, -2.0), Seq(0.0, 4.0, 0.0), Seq()))
  }
}
