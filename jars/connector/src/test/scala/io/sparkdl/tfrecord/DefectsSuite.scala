package io.sparkdl.tfrecord

import java.nio.file.Files

import org.apache.spark.sql.Row
import org.apache.spark.sql.functions._
import org.scalatest.funsuite.AnyFunSuite

/** What older connectors got wrong, each as a case: right here, or refused by the column's name. */
class DefectsSuite extends AnyFunSuite with SparkTables {

  private def refused(column: String, options: (String, String)*): String = {
    val rows = spark.sql(s"SELECT 1L AS fine, $column AS odd")
    reason(rows.write.options(options.toMap).format("tfrecord").save(at(s"refused${(column, options).hashCode}")))
  }

  private def written(path: String, column: String, options: (String, String)*): Row = {
    spark.sql(s"SELECT $column AS odd").write.options(options.toMap).format("tfrecord").save(at(path))
    spark.read.format("tfrecord").load(at(path)).head()
  }

  private val lossy = "allowLossy" -> "true"

  test("a wide decimal is refused, or becomes the nearest float; it never becomes another number") {
    val number = "CAST(1234567890.123 AS decimal(20,3))"
    assert(refused(number).startsWith("Cannot write column `odd` (decimal(20,3)) as TFRecord"))
    assert(written("decimal", number, lossy).getDecimal(0).doubleValue == 1234567890.123f.toDouble)
  }

  test("a double is refused, or becomes the nearest float") {
    assert(refused("CAST(1.1 AS double)").contains("allowLossy"))
    assert(written("double", "CAST(1.1 AS double)", lossy) == Row(1.1f.toDouble))
  }

  test("a null in an array names column and element, of numbers and of texts") {
    for (array <- Seq("array(1L, null)", "array('a', null)", "array(1.5f, null)")) {
      assert(refused(array).startsWith("Cannot write null in element 1 of array column `odd`"))
      assert(refused(array, "nulls" -> "omit").startsWith("Cannot write null in element 1 of array column `odd`"))
    }
  }

  for (kept <- Seq(1, 5, 11)) {
    test(s"a file cut $kept bytes into its last header is an error, also without the side-file") {
      val path = s"cut$kept"
      table(10).coalesce(1).write.format("tfrecord").save(at(path))
      val file = files(path).head
      val bytes = Files.readAllBytes(file)
      val last = Examples.unframe(bytes).last.length + 16
      rewrite(file, bytes.take(bytes.length - last + kept))
      val back = spark.read.schema(tableSchema).option("sideFile", false).format("tfrecord").load(at(path))
      assert(reason(back.collect()).contains(s"record 9 (counted from 0) at byte ${bytes.length - last}"))
      assert(reason(back.count()).contains("the file is truncated"))
    }
  }

  test("binary stays binary without a schema, bytes that are no text above all") {
    spark.sql("SELECT X'00fffe' AS odd").write.option("sideFile", false).format("tfrecord").save(at("binary"))
    val back = spark.read.format("tfrecord").load(at("binary"))
    assert(back.schema.simpleString == "struct<odd:binary>")
    assert(back.head().getAs[Array[Byte]](0).toSeq == Seq[Byte](0, -1, -2))
  }

  test("a column of empty arrays has its type, also without the side-file") {
    val rows = spark.range(3).selectExpr("id", "cast(array() as array<float>) as odd")
    rows.write.format("tfrecord").save(at("hollow"))
    for (sideFile <- Seq(true, false)) {
      val back = spark.read.option("sideFile", sideFile).format("tfrecord").load(at("hollow"))
      assert(back.schema.simpleString == "struct<id:bigint,odd:array<float>>")
      assert(back.orderBy("id").collect().toSeq == rows.collect().toSeq)
    }
  }

  test("columns that were inferred are sorted, and of all files") {
    spark.range(5).selectExpr("id as b", "id as a").coalesce(1).write.option("sideFile", false).format("tfrecord")
      .save(at("several"))
    spark.range(5).selectExpr("id as b", "id as c").coalesce(1).write.mode("append").option("sideFile", false)
      .format("tfrecord").save(at("several"))
    val back = spark.read.option("nulls", "omit").format("tfrecord").load(at("several"))
    assert(back.columns.toSeq == Seq("a", "b", "c"))
    assert(back.count() == 10 && back.where("a is null").count() == 5)
  }

  test("small types, dates and structs are columns; a map is refused by name before a task runs") {
    val columns = "true AS f, 1Y AS y, 2S AS s, date'2026-11-25' AS d, timestamp'2026-11-25 00:00:00' AS t, struct(1 AS a) AS n"
    spark.sql(s"SELECT $columns").write.format("tfrecord").save(at("small"))
    assert(spark.read.format("tfrecord").load(at("small")).head() == spark.sql(s"SELECT $columns").head())
    assert(refused("map('a', 1)").startsWith("Cannot write column `odd` (map<string,int>) as TFRecord"))
  }

  test("an array of arrays is refused with what to say, or comes back") {
    val matrix = "array(array(1f, 2f), array(3f, 4f))"
    assert(refused(matrix).contains("option(\"shapes\""))
    assert(written("matrix", matrix, "shapes" -> """{"odd": [2, 2]}""") == Row(Seq(Seq(1f, 2f), Seq(3f, 4f))))
  }

  test("codecs have short names, and compressed files are inferred") {
    for (codec <- Seq("gzip", "deflate", "zstd")) {
      table(20).write.option("codec", codec).option("sideFile", false).format("tfrecord").save(at(s"by $codec"))
      val back = spark.read.format("tfrecord").load(at(s"by $codec"))
      assert(back.schema.simpleString == "struct<id:bigint,kind:bigint,text:string,xs:array<float>>")
      assert(back.count() == 20)
    }
  }

  test("an empty table is read again with its columns, also one with partition folders") {
    table(0).write.format("tfrecord").save(at("none"))
    val back = spark.read.format("tfrecord").load(at("none"))
    assert(back.columns.toSeq == table(0).columns.toSeq && back.count() == 0)
  }

  test("a declared type that differs names column and file") {
    table(4).coalesce(1).write.format("tfrecord").save(at("declared"))
    for (other <- Seq("string", "double", "float", "array<float>")) {
      val message = reason(read("declared", s"id $other").collect())
      assert(message.contains("column `id`") && message.contains(files("declared").head.getFileName.toString))
    }
  }

  test("a wrong value fails before a row of the table is committed") {
    val nulls = spark.range(100).select(when(col("id") < 99, col("id")).as("x"))
    assert(reason(nulls.write.format("tfrecord").save(at("uncommitted"))).contains("column `x`"))
    assert(files("uncommitted").isEmpty)
  }
}
