package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.expressions.UnsafeArrayData
import org.apache.spark.sql.catalyst.expressions.codegen.{UnsafeArrayWriter, UnsafeRowWriter, UnsafeWriter}

import io.sparkdl.tfrecord.ElementType._

/**
 * Decodes the BytesList, FloatList or Int64List of one column into the row under construction, in two passes: the
 * first counts the values and proves the list well-formed, the second stores them. Packed and unpacked numbers are
 * read alike, as protobuf asks of every reader.
 */
private[tfrecord] abstract class ListDecoder(val column: FeatureColumn, ordinal: Int, row: UnsafeRowWriter) {

  private val array = new UnsafeArrayWriter(row, column.element.numBytes)

  /** Offset of the array's values in the row's buffer. */
  protected var valuesOffset: Long = 0

  /** The tag of a single number outside of a packed field; none for bytes. */
  protected def unpackedTag: Int

  /** Values in the delimited field from the cursor, which stays, to `end`. */
  protected def countField(cursor: WireCursor, end: Int): Int

  /** Stores these values from `index` on in `target` and returns the index after them. */
  protected def storeField(cursor: WireCursor, end: Int, target: UnsafeWriter, index: Int): Int

  /** Stores the field from the cursor to `end` as the column's value, if it is just one. */
  protected def storeScalar(cursor: WireCursor, end: Int): Boolean

  /** Stores the number at the cursor. */
  protected def storeUnpacked(cursor: WireCursor, limit: Int, target: UnsafeWriter, index: Int): Unit

  /** Decodes a list that is one delimited field, from what the field holds. */
  final def decodeField(cursor: WireCursor, start: Int, end: Int): Unit = {
    cursor.position = start
    if (column.isArray) {
      val previous = startArray(countField(cursor, end))
      storeField(cursor, end, array, 0)
      row.setOffsetAndSizeFromPreviousCursor(ordinal, previous)
    } else if (!storeScalar(cursor, end)) {
      cursor.position = start
      requireOne(countField(cursor, end))
    }
  }

  /** Decodes a list of any fields. */
  final def decodeList(cursor: WireCursor, start: Int, end: Int): Unit = {
    val numValues = count(cursor, start, end)
    if (column.isArray) {
      val previous = startArray(numValues)
      store(cursor, start, end, array, 0)
      row.setOffsetAndSizeFromPreviousCursor(ordinal, previous)
    } else {
      requireOne(numValues)
      store(cursor, start, end, row, ordinal)
    }
  }

  /** Values in the list that is any fields. */
  final def countList(cursor: WireCursor, start: Int, end: Int): Int = count(cursor, start, end)

  /** Values in one delimited field. */
  final def countOf(cursor: WireCursor, start: Int, end: Int): Int = {
    cursor.position = start
    countField(cursor, end)
  }

  /** @return where the array starts in the row's buffer */
  private def startArray(numValues: Int): Int = {
    if (column.length.isDefined && column.length.get != numValues) {
      throw new BadRecord(s"$column needs ${column.length.get} values, the record has $numValues")
    }
    val start = row.cursor()
    array.initialize(numValues)
    valuesOffset = start.toLong + UnsafeArrayData.calculateHeaderPortionInBytes(numValues)
    start
  }

  private def requireOne(numValues: Int): Unit =
    if (numValues != 1) throw new BadRecord(s"$column needs one value, the record has $numValues")

  private def count(cursor: WireCursor, start: Int, end: Int): Int = {
    var numValues = 0
    cursor.position = start
    while (cursor.position < end) {
      val tag = cursor.readTag(end)
      if (tag == Wire.Delimited1) {
        val fieldEnd = cursor.readEnd(end)
        numValues += countField(cursor, fieldEnd)
        cursor.position = fieldEnd
      } else {
        if (tag == unpackedTag) numValues += 1
        cursor.skip(tag, end)
      }
    }
    numValues
  }

  private def store(cursor: WireCursor, start: Int, end: Int, target: UnsafeWriter, firstIndex: Int): Unit = {
    var index = firstIndex
    cursor.position = start
    while (cursor.position < end) {
      val tag = cursor.readTag(end)
      if (tag == Wire.Delimited1) {
        val fieldEnd = cursor.readEnd(end)
        index = storeField(cursor, fieldEnd, target, index)
        cursor.position = fieldEnd
      } else if (tag == unpackedTag) {
        storeUnpacked(cursor, end, target, index)
        index += 1
      } else {
        cursor.skip(tag, end)
      }
    }
  }
}

private[tfrecord] object ListDecoder {

  def apply(column: FeatureColumn, ordinal: Int, row: UnsafeRowWriter): ListDecoder = column.element match {
    case Bytes => new BytesDecoder(column, ordinal, row)
    case Float32 => new FloatDecoder(column, ordinal, row)
    case integral: Integral => new IntegralDecoder(column, integral, ordinal, row)
  }
}

/** BytesList: a delimited field is a value. */
private[tfrecord] final class BytesDecoder(column: FeatureColumn, ordinal: Int, row: UnsafeRowWriter)
    extends ListDecoder(column, ordinal, row) {

  override protected def unpackedTag: Int = 0 // no field has this tag

  override protected def countField(cursor: WireCursor, end: Int): Int = 1

  override protected def storeField(cursor: WireCursor, end: Int, target: UnsafeWriter, index: Int): Int = {
    target.write(index, cursor.bytes, cursor.position, end - cursor.position)
    index + 1
  }

  override protected def storeScalar(cursor: WireCursor, end: Int): Boolean = {
    row.write(ordinal, cursor.bytes, cursor.position, end - cursor.position)
    true
  }

  override protected def storeUnpacked(cursor: WireCursor, limit: Int, target: UnsafeWriter, index: Int): Unit =
    throw new IllegalStateException("bytes are never unpacked numbers")
}

/** FloatList: values move as their bits, which keeps every NaN as it is. */
private[tfrecord] final class FloatDecoder(column: FeatureColumn, ordinal: Int, row: UnsafeRowWriter)
    extends ListDecoder(column, ordinal, row) {

  override protected def unpackedTag: Int = Wire.Fixed32At1

  override protected def countField(cursor: WireCursor, end: Int): Int = {
    val numBytes = end - cursor.position
    if (numBytes % 4 != 0) throw new BadRecord(s"$column: $numBytes bytes are no whole number of floats")
    numBytes / 4
  }

  override protected def storeField(cursor: WireCursor, end: Int, target: UnsafeWriter, index: Int): Int =
    if (column.isArray) {
      val count = (end - cursor.position) / 4
      val from = LittleEndian.offset(cursor.position)
      LittleEndian.copyInts(cursor.bytes, from, row.getBuffer, valuesOffset + 4L * index, count)
      index + count
    } else if (cursor.position < end) {
      storeUnpacked(cursor, end, target, index)
      index + 1
    } else {
      index
    }

  override protected def storeScalar(cursor: WireCursor, end: Int): Boolean = {
    val isOne = end - cursor.position == 4
    if (isOne) row.write(ordinal, LittleEndian.getInt(cursor.bytes, cursor.position))
    isOne
  }

  override protected def storeUnpacked(cursor: WireCursor, limit: Int, target: UnsafeWriter, index: Int): Unit =
    target.write(index, cursor.readFloatBits(limit)) // an int of the same bits takes the same place
}

/** Int64List: varints, each checked against what the column's type holds. */
private[tfrecord] final class IntegralDecoder(
    column: FeatureColumn,
    integral: Integral,
    ordinal: Int,
    row: UnsafeRowWriter)
    extends ListDecoder(column, ordinal, row) {

  override protected def unpackedTag: Int = Wire.Varint1

  /** The last byte of a varint is the one that is not negative. */
  override protected def countField(cursor: WireCursor, end: Int): Int = {
    var count = 0
    var i = cursor.position
    while (i < end) {
      if (cursor.bytes(i) >= 0) count += 1
      i += 1
    }
    count
  }

  override protected def storeField(cursor: WireCursor, end: Int, target: UnsafeWriter, index: Int): Int = {
    var next = index
    while (cursor.position < end) {
      storeUnpacked(cursor, end, target, next)
      next += 1
    }
    next
  }

  override protected def storeScalar(cursor: WireCursor, end: Int): Boolean =
    cursor.position < end && {
      storeUnpacked(cursor, end, row, ordinal)
      cursor.position == end
    }

  override protected def storeUnpacked(cursor: WireCursor, limit: Int, target: UnsafeWriter, index: Int): Unit = {
    val value = cursor.readVarint(limit)
    if (value < integral.minimum || value > integral.maximum) throw outOfRange(value)
    integral.put(value, target, index)
  }

  private def outOfRange(value: Long): BadRecord = new BadRecord(
    s"$column holds ${integral.minimum} to ${integral.maximum}, the record has $value"
  )
}
