package io.sparkdl.columns

import java.nio.{ByteBuffer, ByteOrder}

import org.apache.spark.sql.{AnalysisException, Row}
import org.apache.spark.sql.catalyst.analysis.FunctionRegistry
import org.apache.spark.sql.catalyst.expressions.{BoundReference, Expression, GenericInternalRow, UnsafeArrayData, UnsafeProjection}
import org.apache.spark.sql.catalyst.util.GenericArrayData
import org.apache.spark.sql.types._
import org.scalatest.funsuite.AnyFunSuite

import io.sparkdl.tfrecord.SparkTables

/** Arrays of numbers as binaries and back. */
class PackedArraysSuite extends AnyFunSuite with SparkTables {

  private val samples: Map[DataType, Seq[Any]] = Map(
    ShortType -> Seq(Short.MinValue, 0.toShort, Short.MaxValue),
    IntegerType -> Seq(Int.MinValue, 0, Int.MaxValue),
    LongType -> Seq(Long.MinValue, 0L, Long.MaxValue),
    FloatType -> Seq(-0.0f, Float.NaN, Float.MinPositiveValue),
    DoubleType -> Seq(-0.0, Double.PositiveInfinity, Double.MinPositiveValue)
  )

  private def littleEndian(values: Seq[Any]): Seq[Byte] = {
    val buffer = ByteBuffer.allocate(64).order(ByteOrder.LITTLE_ENDIAN)
    values.foreach {
      case value: Short => buffer.putShort(value)
      case value: Int => buffer.putInt(value)
      case value: Long => buffer.putLong(value)
      case value: Float => buffer.putFloat(value)
      case value: Double => buffer.putDouble(value)
      case other => fail(s"no number: $other")
    }
    buffer.array().take(buffer.position()).toSeq
  }

  private def unsafe(values: Seq[Any], element: DataType): UnsafeArrayData =
    UnsafeProjection.create(Array[DataType](ArrayType(element))).apply(row(values)).getArray(0)

  private def row(values: Seq[Any]) = new GenericInternalRow(Array[Any](new GenericArrayData(values.toArray[Any])))

  /** The value of an expression, by interpreting it and by the code that is generated for it, which have to agree. */
  private def evaluated(expression: Expression, input: Any): Any = {
    val rows = new GenericInternalRow(Array[Any](input))
    val generated = UnsafeProjection.create(Seq(expression)).apply(rows).get(0, expression.dataType)
    (expression.eval(rows), generated) match {
      case (one: Array[Byte], other: Array[Byte]) => assert(one.toSeq == other.toSeq)
      case (one, other) => assert(one == other)
    }
    generated
  }

  private def packed(input: Any, element: DataType, size: Int): Option[Seq[Byte]] =
    Option(evaluated(PackArray(BoundReference(0, ArrayType(element), nullable = true), size), input))
      .map(_.asInstanceOf[Array[Byte]].toSeq)

  for ((element, values) <- samples) {
    test(s"an array of ${element.simpleString} and back, wherever it lies") {
      assert(PackedArrays.Packable(element))
      for (array <- Seq(unsafe(values, element), new GenericArrayData(values.toArray[Any]))) {
        assert(packed(array, element, values.size).contains(littleEndian(values)))
      }
      val back = UnpackArray(BoundReference(0, BinaryType, nullable = true), element)
      assert(evaluated(back, littleEndian(values).toArray) == unsafe(values, element))
      assert(evaluated(back, Array.emptyByteArray) == unsafe(Nil, element))
      assert(evaluated(back, null) == null)
    }
  }

  test("what cannot be packed says why in an odd number of bytes") {
    val many = Seq.tabulate[Any](130)(i => if (i == 129) null else i)
    for ((values, marker) <- Seq(
        Seq[Any](1, 2) -> (Seq(PackedArrays.HasLength) ++ littleEndian(Seq(2))),
        Nil -> (Seq(PackedArrays.HasLength) ++ littleEndian(Seq(0))),
        many.take(129) -> (Seq(PackedArrays.HasLength) ++ littleEndian(Seq(129))),
        many -> Seq(PackedArrays.HoldsNull));
      array <- Seq(unsafe(values, IntegerType), new GenericArrayData(values.toArray[Any]))) {
      assert(packed(array, IntegerType, 130).contains(marker))
      assert(marker.size % 2 == 1)
    }
    assert(packed(null, IntegerType, 130).isEmpty)
    assert(packed(unsafe(Nil, IntegerType), IntegerType, 0).contains(Nil))
  }

  test("as functions of a session, on rows of any source") {
    val registry = spark.sessionState.functionRegistry
    PackedArrays.register(registry)
    PackedArrays.register(registry)
    table(5).write.parquet(at("table"))
    for (frame <- Seq(table(5), spark.read.parquet(at("table")), spark.read.parquet(at("table")).cache())) {
      val there = frame.selectExpr("xs", "spark_dl_unpack(spark_dl_pack(xs, 2), 'float') AS back")
      assert(there.schema("back").dataType == ArrayType(FloatType, containsNull = true))
      assert(there.count() == 5 && there.where("xs = back").count() == 5)
    }
    assert(spark.sql("SELECT spark_dl_pack(array(1, 2), 3)").head() == Row(Array[Byte](2, 2, 0, 0, 0)))
  }

  test("other types are refused when the query is planned") {
    PackedArrays.register(spark.sessionState.functionRegistry)
    for ((call, said) <- Seq(
        "spark_dl_pack(array('a'), 1)" -> "takes an array of numbers, not array<string>",
        "spark_dl_pack(1, 1)" -> "takes an array of numbers, not int",
        "spark_dl_unpack(1, 'float')" -> "takes a binary, not int")) {
      assert(intercept[AnalysisException](spark.sql(s"SELECT $call")).getMessage.contains(said))
    }
  }

  test("a registry that has them keeps them") {
    val registry = FunctionRegistry.builtin.clone()
    PackedArrays.register(registry)
    val before = registry.listFunction().size
    PackedArrays.register(registry)
    assert(registry.listFunction().size == before)
  }
}
