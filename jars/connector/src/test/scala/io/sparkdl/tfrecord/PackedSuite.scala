package io.sparkdl.tfrecord

import java.io.ByteArrayOutputStream

import org.apache.spark.sql.catalyst.expressions.UnsafeRow
import org.apache.spark.sql.catalyst.util.ArrayData
import org.apache.spark.sql.types._
import org.apache.spark.unsafe.types.UTF8String
import org.scalatest.funsuite.AnyFunSuite

class PackedSuite extends AnyFunSuite {
  import Examples._

  private val columns = schema("n" -> LongType, "xs" -> ArrayType(FloatType), "t" -> StringType)

  private def rows: Seq[UnsafeRow] = (0 until 10).map { i =>
    unsafe(
      columns, i.toLong * 100, ArrayData.toArrayData(Array.fill(i % 3)(i.toFloat)), UTF8String.fromString("x" * (i % 4)))
  }

  private def packed(perRecord: Int): Seq[Array[Byte]] = {
    val out = new ByteArrayOutputStream
    val records = new RecordWriter(out)
    val serializer = new PackedSerializer(written(columns), perRecord)
    rows.foreach(serializer.write(_, records))
    serializer.finish(records)
    records.close()
    unframe(out.toByteArray).map(_.toArray)
  }

  private def read(record: Array[Byte], required: StructType = columns): Seq[UnsafeRow] = {
    val deserializer = new PackedDeserializer(readable(columns), readable(required))
    deserializer.start(record, 0, record.length)
    Iterator.continually(deserializer).takeWhile(_.hasNext).map(_.next().copy()).toList
  }

  for (perRecord <- Seq(1, 3, 10, 64)) {
    test(s"$perRecord rows a record come back") {
      assert(packed(perRecord).flatMap(read(_)) == rows)
      assert(packed(perRecord).map(read(_).size).init.forall(_ == perRecord))
    }
  }

  test("a pack is the Example that protobuf would write: values in a row, and row splits where lengths vary") {
    val expected = example(
      entry("n", field(3, field(1, varint(0), varint(100), varint(200)))),
      entry("xs", field(2, field(1, Array[Byte](0, 0, 0x80.toByte, 0x3f, 0, 0, 0, 0x40, 0, 0, 0, 0x40)))),
      entry("xs/row_splits", field(3, field(1, varint(0), varint(0), varint(1), varint(3)))),
      entry("t", field(1, field(1), field(1, "x".getBytes), field(1, "xx".getBytes))))
    assert(packed(3).head.toSeq == expected.toSeq)
  }

  test("columns are pruned, and rows are counted without them") {
    assert(packed(4).flatMap(read(_, schema("t" -> StringType))).map(_.getString(0)) == rows.map(_.getString(2)))
    assert(packed(4).flatMap(read(_, schema())).size == 10)
  }

  for ((name, entries, reason) <- Seq[(String, Seq[Array[Byte]], String)](
      ("rows differ", Seq(
        entry("n", field(3, field(1, varint(1), varint(2)))),
        entry("xs", field(2)), entry("xs/row_splits", field(3, field(1, varint(0), varint(0), varint(0)))),
        entry("t", field(1, field(1)))), "column `t` (string) has the values of 1 rows"),
      ("splits fall", Seq(
        entry("n", field(3, field(1, varint(1)))), entry("xs", field(2, field(1, new Array[Byte](8)))),
        entry("xs/row_splits", field(3, field(1, varint(0), varint(2), varint(1)))), entry("t", field(1, field(1)))),
        "does not rise"),
      ("splits end early", Seq(
        entry("n", field(3, field(1, varint(1)))), entry("xs", field(2, field(1, new Array[Byte](8)))),
        entry("xs/row_splits", field(3, field(1, varint(0), varint(1)))), entry("t", field(1, field(1)))),
        "does not end at 2"),
      ("no splits", Seq(
        entry("n", field(3, field(1, varint(1)))), entry("xs", field(2)), entry("t", field(1, field(1)))),
        "`xs/row_splits` (array<bigint>) is not in the record"))) {
    test(s"a pack that cannot be is refused: $name") {
      assert(intercept[BadRecord](read(example(entries: _*))).getMessage.contains(reason))
    }
  }
}
