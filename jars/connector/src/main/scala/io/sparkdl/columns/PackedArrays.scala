package io.sparkdl.columns

import org.apache.spark.sql.catalyst.FunctionIdentifier
import org.apache.spark.sql.catalyst.analysis.FunctionRegistry
import org.apache.spark.sql.catalyst.expressions.{Expression, UnsafeArrayData}
import org.apache.spark.sql.catalyst.util.ArrayData
import org.apache.spark.sql.types._
import org.apache.spark.unsafe.Platform
import org.apache.spark.unsafe.bitset.BitSetMethods

/**
 * Arrays of numbers as binaries that hold the numbers as they lie in memory. Spark writes an array into Arrow, and reads
 * one from it, number by number; a binary is copied at once.
 *
 * A packed array has the one length that was asked for, of elements of at least two bytes, so its bytes are even in
 * number. What cannot be packed says why in an odd number of them, which are few, however long the array is.
 */
object PackedArrays {

  /** SQL names of the two functions. */
  val PackName = "spark_dl_pack"
  val UnpackName = "spark_dl_unpack"

  /** The types of elements that can be packed. */
  val Packable: Set[DataType] = Set(ShortType, IntegerType, LongType, FloatType, DoubleType)

  /** First byte of what stands for an array that holds a null; it is the only one. */
  val HoldsNull: Byte = 1

  /** First byte of what stands for an array of another length, which follows as an int. */
  val HasLength: Byte = 2

  /** How generated code calls this object. */
  private[columns] val JavaName = getClass.getName.stripSuffix("$")

  private val NullBitsOffset = 8L

  /** Makes both functions known to a session; whoever does so again changes nothing. */
  def register(registry: FunctionRegistry): Unit = {
    register(registry, PackName) { case Seq(array, size) => PackArray(array, size.eval().asInstanceOf[Int]) }
    register(registry, UnpackName) { case Seq(packed, element) =>
      UnpackArray(packed, DataType.fromDDL(element.eval().toString))
    }
  }

  private def register(registry: FunctionRegistry, name: String)(
      build: PartialFunction[Seq[Expression], Expression]): Unit =
    if (!registry.functionExists(FunctionIdentifier(name))) {
      registry.createOrReplaceTempFunction(name, (arguments: Seq[Expression]) => build(arguments), "scala_udf")
    }

  /**
   * The numbers of an array, or why it is not packed.
   *
   * @param array the array
   * @param element type of its elements, one of [[Packable]]
   * @param size how many there have to be
   */
  def pack(array: ArrayData, element: DataType, size: Int): Array[Byte] =
    if (array.numElements() != size) lengthOf(array)
    else if (holdsNull(array)) Array(HoldsNull)
    else
      array match {
        case unsafe: UnsafeArrayData => bytesOf(unsafe, element)
        case other => bytesOf(inMemoryOf(other, element), element)
      }

  /**
   * The way back.
   *
   * @param packed the numbers
   * @param width bytes of each
   */
  def unpack(packed: Array[Byte], width: Int): UnsafeArrayData =
    UnsafeArrayData.fromPrimitiveArray(packed, Platform.BYTE_ARRAY_OFFSET, packed.length / width, width)

  private def lengthOf(array: ArrayData): Array[Byte] = {
    val bytes = new Array[Byte](1 + Integer.BYTES)
    bytes(0) = HasLength
    Platform.putInt(bytes, Platform.BYTE_ARRAY_OFFSET + 1L, array.numElements())
    bytes
  }

  private def holdsNull(array: ArrayData): Boolean = array match {
    case unsafe: UnsafeArrayData =>
      val words = (UnsafeArrayData.calculateHeaderPortionInBytes(unsafe.numElements()) - NullBitsOffset) / NullBitsOffset
      BitSetMethods.anySet(unsafe.getBaseObject, unsafe.getBaseOffset + NullBitsOffset, words)
    case other => (0 until other.numElements()).exists(other.isNullAt)
  }

  private def inMemoryOf(array: ArrayData, element: DataType): UnsafeArrayData = element match {
    case ShortType => UnsafeArrayData.fromPrimitiveArray(array.toShortArray())
    case IntegerType => UnsafeArrayData.fromPrimitiveArray(array.toIntArray())
    case LongType => UnsafeArrayData.fromPrimitiveArray(array.toLongArray())
    case FloatType => UnsafeArrayData.fromPrimitiveArray(array.toFloatArray())
    case DoubleType => UnsafeArrayData.fromPrimitiveArray(array.toDoubleArray())
    case other => throw new IllegalArgumentException(s"elements of type ${other.simpleString} cannot be packed")
  }

  private def bytesOf(array: UnsafeArrayData, element: DataType): Array[Byte] = {
    val bytes = new Array[Byte](array.numElements() * element.defaultSize)
    val values = array.getBaseOffset + UnsafeArrayData.calculateHeaderPortionInBytes(array.numElements())
    Platform.copyMemory(array.getBaseObject, values, bytes, Platform.BYTE_ARRAY_OFFSET, bytes.length.toLong)
    bytes
  }
}
