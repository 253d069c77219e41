package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.{Expression, GenericInternalRow, UnaryExpression}
import org.apache.spark.sql.catalyst.expressions.codegen.CodegenFallback
import org.apache.spark.sql.catalyst.util.{ArrayData, GenericArrayData}
import org.apache.spark.sql.types._

/** Arrays of arrays, each of the length that `shape` says, as one array in row-major order. */
private[tfrecord] final case class FlattenArray(child: Expression, shape: Seq[Int], column: String)
    extends UnaryExpression
    with CodegenFallback {

  private lazy val element = FlattenArray.bottom(child.dataType)

  override def dataType: DataType = ArrayType(element)

  override protected def nullSafeEval(value: Any): Any = {
    val flat = new Array[Any](shape.product)
    fill(flat, 0, value.asInstanceOf[ArrayData], shape)
    new GenericArrayData(flat)
  }

  private def fill(flat: Array[Any], at: Int, array: ArrayData, dimensions: Seq[Int]): Int = {
    if (array.numElements() != dimensions.head) {
      throw TFRecordException.wrongLength(column, array.numElements(), dimensions.head)
    }
    var position = at
    var i = 0
    while (i < array.numElements()) {
      if (array.isNullAt(i) && dimensions.size > 1) throw TFRecordException.nullElement(column, i)
      if (dimensions.size > 1) position = fill(flat, position, array.getArray(i), dimensions.tail)
      else {
        if (!array.isNullAt(i)) flat(position) = array.get(i, element)
        position += 1
      }
      i += 1
    }
    position
  }

  override protected def withNewChildInternal(newChild: Expression): FlattenArray = copy(child = newChild)
}

private[tfrecord] object FlattenArray {
  def bottom(dataType: DataType): DataType = dataType match {
    case ArrayType(element, _) => bottom(element)
    case other => other
  }
}

/** The way back from [[FlattenArray]]. The length was checked by the decoder. */
private[tfrecord] final case class NestArray(child: Expression, shape: Seq[Int])
    extends UnaryExpression
    with CodegenFallback {

  private lazy val element = FlattenArray.bottom(child.dataType)

  override def dataType: DataType = shape.foldLeft(element)((inner, _) => ArrayType(inner))

  override protected def nullSafeEval(value: Any): Any = {
    val flat = value.asInstanceOf[ArrayData]
    nested(flat, 0, shape)
  }

  private def nested(flat: ArrayData, at: Int, dimensions: Seq[Int]): ArrayData = {
    val step = dimensions.tail.product
    new GenericArrayData(Array.tabulate[Any](dimensions.head) { i =>
      if (dimensions.size == 1) flat.get(at + i, element) else nested(flat, at + i * step, dimensions.tail)
    })
  }

  override protected def withNewChildInternal(newChild: Expression): NestArray = copy(child = newChild)
}

/** Spark ML's vectors, known by name: Spark ML need not be there. */
private[tfrecord] object VectorFeatures {
  final val Dense = 1.toByte

  def isVector(dataType: DataType): Boolean =
    dataType.getClass.getName == "org.apache.spark.ml.linalg.VectorUDT"
}

/** A vector, dense or sparse, as floats. Catalyst holds it as (type, size, indices, values). */
private[tfrecord] final case class VectorToFloats(child: Expression) extends UnaryExpression with CodegenFallback {

  override def dataType: DataType = ArrayType(FloatType, containsNull = false)

  override protected def nullSafeEval(value: Any): Any = {
    val vector = value.asInstanceOf[InternalRow]
    val values = vector.getArray(3).toDoubleArray()
    if (vector.getByte(0) == VectorFeatures.Dense) ArrayData.toArrayData(values.map(_.toFloat))
    else {
      val floats = new Array[Float](vector.getInt(1))
      vector.getArray(2).toIntArray().zip(values).foreach { case (index, one) => floats(index) = one.toFloat }
      ArrayData.toArrayData(floats)
    }
  }

  override protected def withNewChildInternal(newChild: Expression): VectorToFloats = copy(child = newChild)
}

/** Floats as a dense vector. */
private[tfrecord] final case class FloatsToVector(child: Expression, vectorType: DataType)
    extends UnaryExpression
    with CodegenFallback {

  override def dataType: DataType = vectorType

  override protected def nullSafeEval(value: Any): Any = {
    val values = value.asInstanceOf[ArrayData].toFloatArray().map(_.toDouble)
    new GenericInternalRow(Array[Any](VectorFeatures.Dense, null, null, ArrayData.toArrayData(values)))
  }

  override protected def withNewChildInternal(newChild: Expression): FloatsToVector = copy(child = newChild)
}
