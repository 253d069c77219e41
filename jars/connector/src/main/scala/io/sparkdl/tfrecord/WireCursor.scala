package io.sparkdl.tfrecord

/** A position in the bytes of one record. Nothing is read beyond the `limit` that a method is given. */
private[tfrecord] final class WireCursor {
  var bytes: Array[Byte] = Array.emptyByteArray
  var position: Int = 0

  def readTag(limit: Int): Int = {
    val tag = readVarint(limit)
    if (tag <= 7 || tag > 0xffffffffL) throw new BadRecord(s"invalid protobuf tag $tag")
    tag.toInt
  }

  def readVarint(limit: Int): Long =
    if (position < limit && bytes(position) >= 0) {
      position += 1
      bytes(position - 1).toLong
    } else {
      readLongVarint(limit)
    }

  private def readLongVarint(limit: Int): Long = {
    var value = 0L
    var shift = 0
    while (shift < 64) {
      if (position >= limit) throw new BadRecord("a protobuf number is cut off")
      val byte = bytes(position)
      position += 1
      value |= (byte & 0x7fL) << shift
      if (byte >= 0) return value
      shift += 7
    }
    throw new BadRecord("a protobuf number is longer than 10 bytes")
  }

  /** Reads a length and returns where the bytes that it counts end. */
  def readEnd(limit: Int): Int = {
    val length = readVarint(limit)
    if (length < 0 || length > limit - position) {
      throw new BadRecord(s"a protobuf field of ${java.lang.Long.toUnsignedString(length)} bytes is cut off")
    }
    position + length.toInt
  }

  def readFloatBits(limit: Int): Int = {
    val at = position
    advance(4, limit)
    LittleEndian.getInt(bytes, at)
  }

  /** Skips the value of an unknown field. */
  def skip(tag: Int, limit: Int): Unit = tag & 7 match {
    case Wire.VarintType => readVarint(limit)
    case Wire.Fixed64Type => advance(8, limit)
    case Wire.DelimitedType => position = readEnd(limit)
    case Wire.Fixed32Type => advance(4, limit)
    case other => throw new BadRecord(s"unknown protobuf wire type $other")
  }

  private def advance(numBytes: Int, limit: Int): Unit = {
    if (numBytes > limit - position) throw new BadRecord("a protobuf field is cut off")
    position += numBytes
  }
}
