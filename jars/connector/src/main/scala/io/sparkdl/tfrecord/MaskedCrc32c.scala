package io.sparkdl.tfrecord

import java.util.zip.CRC32C

/**
 * The checksum of TFRecord files: CRC-32C (Castagnoli; RFC 3720, appendix B.4), rotated right by 15 bits plus a
 * constant, so that a checksum of data which hold checksums stays good (TFRecord format,
 * https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).
 */
private[tfrecord] final class MaskedCrc32c {
  private val crc = new CRC32C

  def of(bytes: Array[Byte], start: Int, length: Int): Int = {
    reset()
    update(bytes, start, length)
    value
  }

  // the same in pieces
  def reset(): Unit = crc.reset()
  def update(bytes: Array[Byte], start: Int, length: Int): Unit = crc.update(bytes, start, length)
  def value: Int = MaskedCrc32c.masked(crc.getValue.toInt)
}

private[tfrecord] object MaskedCrc32c {
  private final val Delta = 0xa282ead8

  def masked(crc: Int): Int = Integer.rotateRight(crc, 15) + Delta
}
