package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.expressions.{SpecializedGetters, UnsafeArrayData, UnsafeRow}
import org.apache.spark.sql.catalyst.util.ArrayData
import org.apache.spark.sql.types.{BinaryType, DataType}
import org.apache.spark.unsafe.Platform
import org.apache.spark.unsafe.types.UTF8String

import io.sparkdl.tfrecord.ElementType._

/**
 * Encodes the values of one column, in two passes: `payloadSize`, which also refuses nulls, and `putPayload`. The
 * payload of numbers is what their packed field holds; the payload of bytes is the BytesList.
 */
private[tfrecord] abstract class ListEncoder {

  def payloadSize(row: SpecializedGetters): Long

  /** Writes `payloadSize(row)` bytes and returns the position after them. */
  def putPayload(row: SpecializedGetters, out: Array[Byte], at: Int): Int
}

private[tfrecord] object ListEncoder {

  def apply(column: FeatureColumn, ordinal: Int): ListEncoder = (column.element, column.isArray) match {
    case (Bytes, false) => new BytesEncoder(column, ordinal)
    case (Bytes, true) => new BytesArrayEncoder(column, ordinal)
    case (Float32, false) => new FloatEncoder(column, ordinal)
    case (Float32, true) => new FloatArrayEncoder(column, ordinal)
    case (integral: Integral, false) => new IntegralEncoder(column, integral, ordinal)
    case (integral: Integral, true) => new IntegralArrayEncoder(column, integral, ordinal)
  }

  /** The bytes of a string or binary value, without a copy where Spark allows. */
  def bytesOf(values: SpecializedGetters, ordinal: Int, isBinary: Boolean): UTF8String = values match {
    case row: UnsafeRow => row.getUTF8String(ordinal) // a view of the bytes, of whichever type they are
    case array: UnsafeArrayData => array.getUTF8String(ordinal)
    case _ if isBinary => UTF8String.fromBytes(values.getBinary(ordinal))
    case _ => values.getUTF8String(ordinal)
  }
}

private[tfrecord] final class IntegralEncoder(column: FeatureColumn, integral: Integral, ordinal: Int)
    extends ListEncoder {

  override def payloadSize(row: SpecializedGetters): Long = {
    NullCheck.scalar(column, row, ordinal)
    Wire.varintSize(integral.get(row, ordinal)).toLong
  }

  override def putPayload(row: SpecializedGetters, out: Array[Byte], at: Int): Int =
    Wire.putVarint(integral.get(row, ordinal), out, at)
}

private[tfrecord] final class IntegralArrayEncoder(column: FeatureColumn, integral: Integral, ordinal: Int)
    extends ListEncoder {

  override def payloadSize(row: SpecializedGetters): Long = {
    val array = NullCheck.array(column, row, ordinal)
    var size = 0L
    var i = 0
    while (i < array.numElements()) {
      size += Wire.varintSize(integral.get(array, i))
      i += 1
    }
    size
  }

  override def putPayload(row: SpecializedGetters, out: Array[Byte], at: Int): Int = {
    val array = row.getArray(ordinal)
    var position = at
    var i = 0
    while (i < array.numElements()) {
      position = Wire.putVarint(integral.get(array, i), out, position)
      i += 1
    }
    position
  }
}

private[tfrecord] final class FloatEncoder(column: FeatureColumn, ordinal: Int) extends ListEncoder {

  override def payloadSize(row: SpecializedGetters): Long = {
    NullCheck.scalar(column, row, ordinal)
    4
  }

  override def putPayload(row: SpecializedGetters, out: Array[Byte], at: Int): Int = {
    LittleEndian.putInt(java.lang.Float.floatToRawIntBits(row.getFloat(ordinal)), out, at)
    at + 4
  }
}

private[tfrecord] final class FloatArrayEncoder(column: FeatureColumn, ordinal: Int) extends ListEncoder {

  override def payloadSize(row: SpecializedGetters): Long =
    4L * NullCheck.array(column, row, ordinal).numElements()

  override def putPayload(row: SpecializedGetters, out: Array[Byte], at: Int): Int = {
    val array = row.getArray(ordinal)
    val count = array.numElements()
    array match {
      case unsafe: UnsafeArrayData =>
        val values = unsafe.getBaseOffset + UnsafeArrayData.calculateHeaderPortionInBytes(count)
        LittleEndian.copyInts(unsafe.getBaseObject, values, out, LittleEndian.offset(at), count)
      case _ =>
        var i = 0
        while (i < count) {
          LittleEndian.putInt(java.lang.Float.floatToRawIntBits(array.getFloat(i)), out, at + 4 * i)
          i += 1
        }
    }
    at + 4 * count
  }
}

/** Strings or binary: one delimited field a value. */
private[tfrecord] sealed abstract class DelimitedEncoder(elementType: DataType) extends ListEncoder {

  private val isBinary = elementType == BinaryType

  protected final def valueSize(values: SpecializedGetters, ordinal: Int): Long =
    Wire.delimitedSize(ListEncoder.bytesOf(values, ordinal, isBinary).numBytes().toLong)

  protected final def putValue(values: SpecializedGetters, ordinal: Int, out: Array[Byte], at: Int): Int = {
    val bytes = ListEncoder.bytesOf(values, ordinal, isBinary)
    val position = Wire.putDelimitedHeader(Wire.Delimited1, bytes.numBytes().toLong, out, at)
    bytes.writeToMemory(out, LittleEndian.offset(position))
    position + bytes.numBytes()
  }
}

private[tfrecord] final class BytesEncoder(column: FeatureColumn, ordinal: Int)
    extends DelimitedEncoder(column.elementType) {

  override def payloadSize(row: SpecializedGetters): Long = {
    NullCheck.scalar(column, row, ordinal)
    valueSize(row, ordinal)
  }

  override def putPayload(row: SpecializedGetters, out: Array[Byte], at: Int): Int =
    putValue(row, ordinal, out, at)
}

private[tfrecord] final class BytesArrayEncoder(column: FeatureColumn, ordinal: Int)
    extends DelimitedEncoder(column.elementType) {

  override def payloadSize(row: SpecializedGetters): Long = {
    val array = NullCheck.array(column, row, ordinal)
    var size = 0L
    var i = 0
    while (i < array.numElements()) {
      size += valueSize(array, i)
      i += 1
    }
    size
  }

  override def putPayload(row: SpecializedGetters, out: Array[Byte], at: Int): Int = {
    val array = row.getArray(ordinal)
    var position = at
    var i = 0
    while (i < array.numElements()) {
      position = putValue(array, i, out, position)
      i += 1
    }
    position
  }
}

/** Finds nulls before a byte of their row is written. */
private[tfrecord] object NullCheck {

  def scalar(column: FeatureColumn, row: SpecializedGetters, ordinal: Int): Unit =
    if (row.isNullAt(ordinal)) throw TFRecordException.nullValue(column.name)

  def array(column: FeatureColumn, row: SpecializedGetters, ordinal: Int): ArrayData = {
    scalar(column, row, ordinal)
    val array = row.getArray(ordinal)
    if (column.length.isDefined && column.length.get != array.numElements()) {
      throw TFRecordException.wrongLength(column.name, array.numElements(), column.length.get)
    }
    if (mayHoldNull(array)) {
      var i = 0
      while (i < array.numElements()) {
        if (array.isNullAt(i)) throw TFRecordException.nullElement(column.name, i)
        i += 1
      }
    }
    array
  }

  /** Whether to look at each element: an `UnsafeArrayData` tells by the words of its null bits, 64 at once. */
  private def mayHoldNull(array: ArrayData): Boolean = array match {
    case unsafe: UnsafeArrayData =>
      val end = unsafe.getBaseOffset + UnsafeArrayData.calculateHeaderPortionInBytes(unsafe.numElements())
      var word = unsafe.getBaseOffset + 8
      while (word < end) {
        if (Platform.getLong(unsafe.getBaseObject, word) != 0) return true
        word += 8
      }
      false
    case _ => true
  }
}
