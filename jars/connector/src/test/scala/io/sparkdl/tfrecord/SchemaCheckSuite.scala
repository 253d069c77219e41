package io.sparkdl.tfrecord

import org.apache.spark.sql.types._
import org.scalatest.funsuite.AnyFunSuite

class SchemaCheckSuite extends AnyFunSuite {
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
      val columns = SchemaCheck.forWrite(schema("scalar" -> dataType, "array" -> ArrayType(dataType)))
      assert(columns.map(_.element.list) == Seq(kind, kind))
      assert(columns.map(_.isArray) == Seq(false, true))
    }
  }

  private val refused = Seq(
    DoubleType -> "cast to float (spark_dl.prepare does this)",
    ArrayType(DoubleType) -> "cast to array<float> (spark_dl.prepare does this)",
    DecimalType(20, 3) -> "cast to bigint or float, or to string",
    MapType(StringType, LongType) -> "select the map's values",
    StructType(Seq(StructField("x", LongType))) -> "select the struct's fields",
    ArrayType(ArrayType(FloatType)) -> "flatten the column",
    ArrayType(DecimalType(5, 2)) -> "cast to one of them",
    ArrayType(StructType(Seq(StructField("x", LongType)))) -> "cast to one of them",
    DayTimeIntervalType() -> "cast to one of them",
    YearMonthIntervalType() -> "cast to one of them",
    CalendarIntervalType -> "cast to one of them",
    NullType -> "cast to one of them"
  )

  for ((dataType, advice) <- refused; verb <- Seq("write", "read")) {
    test(s"${dataType.simpleString} is refused to $verb by column, with what to do") {
      val bad = schema("fine" -> LongType, "odd one" -> dataType)
      val error = intercept[TFRecordException] {
        if (verb == "write") SchemaCheck.forWrite(bad) else SchemaCheck.forRead(bad)
      }
      assert(error.getMessage.startsWith(s"Cannot $verb column `odd one` (${dataType.simpleString}) as TFRecord: "))
      assert(error.getMessage.contains(advice))
    }
  }
}
