package io.sparkdl.tfrecord

/**
 * The parts of protobuf's wire format that a `tf.train.Example` uses
 * (https://protobuf.dev/programming-guides/encoding).
 *
 * {{{
 *   Example   { Features features = 1 }
 *   Features  { repeated entry { string key = 1; Feature value = 2 } feature = 1 }
 *   Feature   { BytesList bytes_list = 1 | FloatList float_list = 2 | Int64List int64_list = 3 }
 *   BytesList { repeated bytes value = 1 }
 *   FloatList { repeated float value = 1 [packed] }
 *   Int64List { repeated int64 value = 1 [packed] }
 * }}}
 */
private[tfrecord] object Wire {
  // Wire types, the low three bits of a tag.
  final val VarintType = 0
  final val Fixed64Type = 1
  final val DelimitedType = 2
  final val Fixed32Type = 5

  // Tags of field 1 and field 2. All but two of an Example's fields are field 1 and delimited.
  final val Delimited1 = 1 << 3 | DelimitedType
  final val Delimited2 = 2 << 3 | DelimitedType
  final val Varint1 = 1 << 3 | VarintType
  final val Fixed32At1 = 1 << 3 | Fixed32Type

  def delimitedTag(fieldNumber: Int): Int = fieldNumber << 3 | DelimitedType

  /** Bytes of `value` as a varint: 1 to 10. */
  def varintSize(value: Long): Int = (640 - java.lang.Long.numberOfLeadingZeros(value) * 9) >>> 6

  /** Bytes of a delimited field with a one-byte tag: tag, length, `numBytes`. */
  def delimitedSize(numBytes: Long): Long = 1 + varintSize(numBytes) + numBytes

  /** Bytes of the tag and the length of a delimited field. */
  def delimitedHeaderSize(numBytes: Int): Int = 1 + varintSize(numBytes.toLong)

  /** Writes `value` as a varint and returns the position after it. */
  def putVarint(value: Long, out: Array[Byte], at: Int): Int = {
    var rest = value
    var position = at
    while ((rest & ~0x7fL) != 0) {
      out(position) = (rest | 0x80).toByte
      rest >>>= 7
      position += 1
    }
    out(position) = rest.toByte
    position + 1
  }

  /** Writes the tag and the length of a delimited field and returns the position after them. */
  def putDelimitedHeader(tag: Int, numBytes: Long, out: Array[Byte], at: Int): Int = {
    out(at) = tag.toByte
    putVarint(numBytes, out, at + 1)
  }

  /** A delimited field that holds `content`. */
  def delimitedField(tag: Int, content: Array[Byte]): Array[Byte] = {
    val field = new Array[Byte](delimitedSize(content.length.toLong).toInt)
    val start = putDelimitedHeader(tag, content.length.toLong, field, 0)
    System.arraycopy(content, 0, field, start, content.length)
    field
  }
}
