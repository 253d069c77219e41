package io.sparkdl.tfrecord

import org.apache.spark.sql.types._
import org.scalatest.funsuite.AnyFunSuite

class RecordLayoutSuite extends AnyFunSuite {
  import Examples.schema

  private val supported = Seq(
    BooleanType -> ListKind.Int64List,
    ByteType -> ListKind.Int64List,
    ShortType -> ListKind.Int64List,
    IntegerType -> ListKind.Int64List,
    LongType -> ListKind.Int64List,
    DateType -> ListKind.Int64List,
    TimestampType -> ListKind.Int64List,
    TimestampNTZType -> ListKind.Int64List,
    FloatType -> ListKind.FloatList,
    StringType -> ListKind.BytesList,
    BinaryType -> ListKind.BytesList
  )

  for ((dataType, kind) <- supported) {
    test(s"${dataType.simpleString} and its array are a ${kind.name}") {
      val columns = Examples.written(schema("scalar" -> dataType, "array" -> ArrayType(dataType)))
      assert(columns.map(_.element.list) == Seq(kind, kind))
      assert(columns.map(_.isArray) == Seq(false, true))
    }
  }

  private val refused = Seq(
    DecimalType(20, 3) -> "accept 32-bit floats with option(\"allowLossy\", \"true\")",
    MapType(StringType, LongType) -> "select the map's values",
    ArrayType(ArrayType(FloatType)) -> "option(\"shapes\", '{\"odd one\": [2, 3]}')",
    ArrayType(DecimalType(5, 2)) -> "accept 32-bit floats",
    ArrayType(StructType(Seq(StructField("x", LongType)))) -> "select each field of the structs as an array",
    DayTimeIntervalType() -> "cast to one of them",
    YearMonthIntervalType() -> "cast to one of them",
    CalendarIntervalType -> "cast to one of them",
    NullType -> "cast to one of them"
  )

  for ((dataType, advice) <- refused; verb <- Seq("write", "read")) {
    test(s"${dataType.simpleString} is refused to $verb by column, with what to do") {
      val bad = schema("fine" -> LongType, "odd one" -> dataType)
      val error = intercept[TFRecordException] {
        if (verb == "write") Examples.written(bad) else Examples.readable(bad)
      }
      assert(error.getMessage.startsWith(s"Cannot $verb column `odd one` (${dataType.simpleString}) as TFRecord: "))
      assert(error.getMessage.contains(advice))
    }
  }

  for (dataType <- Seq(DoubleType, ArrayType(DoubleType))) {
    test(s"${dataType.simpleString} is written with allowLossy only, and read without: a float is a double") {
      val error = intercept[TFRecordException](Examples.written(schema("x" -> dataType)))
      assert(error.getMessage.contains("option(\"allowLossy\", \"true\")"))
      val lossy = new TFRecordOptions(Map("allowLossy" -> "true"))
      assert(Examples.written(schema("x" -> dataType), lossy).map(_.element) == Seq(ElementType.Float32))
      assert(Examples.readable(schema("x" -> dataType)).map(_.element) == Seq(ElementType.Float32))
    }
  }

  test("structs become features by their dotted names, and two features of one name are refused") {
    val inner = schema("x" -> LongType, "ys" -> ArrayType(FloatType))
    assert(Examples.written(schema("s" -> inner, "t" -> schema("s" -> inner))).map(_.name) ==
      Seq("s.x", "s.ys", "t.s.x", "t.s.ys"))
    val error = intercept[TFRecordException](Examples.written(schema("s" -> inner, "s.x" -> LongType)))
    assert(error.getMessage.contains("`s.x`"))
  }

  test("a shape that is not the column's is refused") {
    val options = new TFRecordOptions(Map("shapes" -> """{"x": [4]}"""))
    val error = intercept[TFRecordException](Examples.written(schema("x" -> ArrayType(ArrayType(LongType))), options))
    assert(error.getMessage.contains("1 dimensions (4)"))
  }
}
