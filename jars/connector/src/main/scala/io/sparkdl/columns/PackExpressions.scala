package io.sparkdl.columns

import org.apache.spark.sql.catalyst.analysis.TypeCheckResult
import org.apache.spark.sql.catalyst.expressions.{Expression, UnaryExpression}
import org.apache.spark.sql.catalyst.expressions.codegen.{CodegenContext, ExprCode}
import org.apache.spark.sql.catalyst.util.ArrayData
import org.apache.spark.sql.types.{ArrayType, BinaryType, DataType}

/** An array of numbers as a binary, see [[PackedArrays.pack]]. Null of null. */
final case class PackArray(child: Expression, size: Int) extends UnaryExpression {

  private lazy val element = child.dataType.asInstanceOf[ArrayType].elementType

  override def dataType: DataType = BinaryType

  override def prettyName: String = PackedArrays.PackName

  override def checkInputDataTypes(): TypeCheckResult = child.dataType match {
    case ArrayType(element, _) if PackedArrays.Packable(element) => TypeCheckResult.TypeCheckSuccess
    case other => TypeCheckResult.TypeCheckFailure(s"$prettyName takes an array of numbers, not ${other.simpleString}")
  }

  override protected def nullSafeEval(array: Any): Any = PackedArrays.pack(array.asInstanceOf[ArrayData], element, size)

  override protected def doGenCode(ctx: CodegenContext, ev: ExprCode): ExprCode = {
    val of = ctx.addReferenceObj("element", element, classOf[DataType].getName)
    defineCodeGen(ctx, ev, array => s"${PackedArrays.JavaName}.pack($array, $of, $size)")
  }

  override protected def withNewChildInternal(newChild: Expression): PackArray = copy(child = newChild)
}

/** The way back: a binary of numbers as an array, see [[PackedArrays.unpack]]. Null of null. */
final case class UnpackArray(child: Expression, element: DataType) extends UnaryExpression {

  // as an array that Spark makes of Arrow's
  override def dataType: DataType = ArrayType(element, containsNull = true)

  override def prettyName: String = PackedArrays.UnpackName

  override def checkInputDataTypes(): TypeCheckResult =
    if (child.dataType == BinaryType) TypeCheckResult.TypeCheckSuccess
    else TypeCheckResult.TypeCheckFailure(s"$prettyName takes a binary, not ${child.dataType.simpleString}")

  override protected def nullSafeEval(packed: Any): Any =
    PackedArrays.unpack(packed.asInstanceOf[Array[Byte]], element.defaultSize)

  override protected def doGenCode(ctx: CodegenContext, ev: ExprCode): ExprCode =
    defineCodeGen(ctx, ev, packed => s"${PackedArrays.JavaName}.unpack($packed, ${element.defaultSize})")

  override protected def withNewChildInternal(newChild: Expression): UnpackArray = copy(child = newChild)
}
