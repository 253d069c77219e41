package io.sparkdl.tfrecord

import scala.util.{Random, Try}

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.types._
import org.apache.spark.unsafe.types.UTF8String
import org.scalatest.funsuite.AnyFunSuite

/** Floats side by side are what each of them would be alone. */
class FloatRunSuite extends AnyFunSuite {
  import Examples._

  private val names = Seq("a", "bb", "ccc", "d" * 130, "e")
  private val columns = schema(
    Seq("first" -> LongType) ++ names.map(_ -> (FloatType: DataType)) ++
      Seq("text" -> StringType, "x" -> FloatType, "y" -> FloatType): _*)
  private val values: Seq[Any] =
    Seq(300L, 1.5f, -0.0f, Float.NaN, Float.MinPositiveValue, 7f, UTF8String.fromString("text"), 2f, 3f)

  private def bits(value: Float): Array[Byte] = {
    val bytes = new Array[Byte](4)
    LittleEndian.putInt(java.lang.Float.floatToRawIntBits(value), bytes, 0)
    bytes
  }

  private val entries: Seq[Array[Byte]] = columns.fieldNames.toSeq.zip(values).map {
    case (name, value: Float) => entry(name, field(2, field(1, bits(value))))
    case (name, value: Long) => entry(name, field(3, field(1, varint(value))))
    case (name, value) => entry(name, field(1, field(1, value.toString.getBytes("UTF-8"))))
  }

  test("the runs of a table") {
    val runs = FloatRun.of(written(columns))
    assert(runs.map(run => (run.first, run.count)) == Seq((1, 5), (7, 2)))
    assert(FloatRun.of(written(schema("a" -> FloatType, "b" -> LongType, "c" -> FloatType))).isEmpty)
  }

  test("they are written as protobuf would, from rows of both kinds") {
    assert(encode(columns, unsafe(columns, values: _*)).toSeq == example(entries: _*).toSeq)
    assert(encode(columns, InternalRow(values: _*)).toSeq == example(entries: _*).toSeq)
  }

  test("they are read, whichever columns are asked for") {
    val record = example(entries: _*)
    assert(decode(columns, record) == unsafe(columns, values: _*))
    for (i <- columns.indices) {
      val one = schema(columns(i).name -> columns(i).dataType)
      assert(decode(columns, one, record) == unsafe(one, values(i)))
    }
  }

  test("in another order, among others and in other words they are the same row") {
    val random = new Random(1)
    val row = unsafe(columns, values: _*)
    for (_ <- 1 to 200) {
      val strange = entry("strange", field(2, field(1, bits(9f))))
      assert(decode(columns, example(random.shuffle(entries :+ strange): _*)) == row)
    }
    val unpacked = entry("bb", field(2, Array[Byte](Wire.Fixed32At1.toByte) ++ bits(-0.0f)))
    assert(decode(columns, example(entries.updated(2, unpacked): _*)) == row)
  }

  test("one that is missing, there twice, of another list or length, or null is an error by its name") {
    def said(changed: Seq[Array[Byte]]): String = intercept[BadRecord](decode(columns, example(changed: _*))).getMessage
    assert(said(entries.patch(2, Nil, 1)) == "column `bb` (float) is not in the record")
    assert(said(entries :+ entries(2)) == "column `bb` (float) is in the record twice")
    assert(said(entries.updated(2, entry("bb", field(3, field(1, varint(1)))))).contains("column `bb` (float) needs FloatList"))
    assert(said(entries.updated(2, entry("bb", field(2, field(1, bits(1), bits(2)))))).contains("column `bb` (float) needs one value"))
    for (i <- 1 to 5; row <- Seq(unsafe(columns, values.updated(i, null): _*), InternalRow(values.updated(i, null): _*))) {
      val error = intercept[TFRecordException](encode(columns, row))
      assert(error.getMessage.startsWith(s"Cannot write null in column `${columns(i).name}`"))
    }
  }

  test("any byte of a record that changes is an error or another value, the same as without runs") {
    val random = new Random(2)
    val record = example(entries: _*)
    val required = readable(columns)
    for (_ <- 1 to 20000) {
      val changed = record.clone()
      changed(random.nextInt(record.length)) = random.nextInt(256).toByte
      val whole = Try(decode(columns, changed))
      // read by columns in an order in which no two floats stand side by side, nothing is a run
      val apart = Try {
        val order = IndexedSeq(1, 0, 2, 6, 3).map(required)
        row(new ExampleDeserializer(order, order.take(1)), changed, 0, changed.length).getFloat(0)
      }
      if (whole.isSuccess && apart.isSuccess) {
        assert(java.lang.Float.floatToRawIntBits(whole.get.getFloat(1)) == java.lang.Float.floatToRawIntBits(apart.get))
      }
    }
  }
}
