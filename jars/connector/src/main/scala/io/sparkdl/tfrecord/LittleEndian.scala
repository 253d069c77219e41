package io.sparkdl.tfrecord

import java.nio.ByteOrder

import org.apache.spark.unsafe.Platform

/** Little-endian numbers in byte arrays, whatever the machine's own order. */
private[tfrecord] object LittleEndian {
  private val isNative = ByteOrder.nativeOrder == ByteOrder.LITTLE_ENDIAN

  def getInt(bytes: Array[Byte], at: Int): Int = inOrder(Platform.getInt(bytes, offset(at)))

  def getLong(bytes: Array[Byte], at: Int): Long = inOrder(Platform.getLong(bytes, offset(at)))

  def putInt(value: Int, bytes: Array[Byte], at: Int): Unit = Platform.putInt(bytes, offset(at), inOrder(value))

  def putLong(value: Long, bytes: Array[Byte], at: Int): Unit = Platform.putLong(bytes, offset(at), inOrder(value))

  /** Copies `count` 4-byte numbers between Spark's unsafe memory, in native order, and little-endian bytes. */
  def copyInts(from: AnyRef, fromOffset: Long, to: AnyRef, toOffset: Long, count: Int): Unit =
    if (isNative) {
      Platform.copyMemory(from, fromOffset, to, toOffset, 4L * count)
    } else {
      var moved = 0L
      while (moved < 4L * count) {
        Platform.putInt(to, toOffset + moved, Integer.reverseBytes(Platform.getInt(from, fromOffset + moved)))
        moved += 4
      }
    }

  /** Whether two stretches of bytes are equal; quicker than `Arrays.equals` for the few bytes of a key. */
  def areEqual(left: Array[Byte], leftAt: Int, right: Array[Byte], rightAt: Int, length: Int): Boolean = {
    var i = 0
    while (i + 8 <= length) {
      if (Platform.getLong(left, offset(leftAt + i)) != Platform.getLong(right, offset(rightAt + i))) return false
      i += 8
    }
    while (i < length) {
      if (left(leftAt + i) != right(rightAt + i)) return false
      i += 1
    }
    true
  }

  /** Whether `image` lies at `at`, but for the bits that `mask`, which is as long, has not. */
  def areEqual(image: Array[Byte], bytes: Array[Byte], at: Int, mask: Array[Byte]): Boolean = {
    var i = 0
    while (i + 8 <= image.length) {
      val differ = Platform.getLong(image, offset(i)) ^ Platform.getLong(bytes, offset(at + i))
      if ((differ & Platform.getLong(mask, offset(i))) != 0) return false
      i += 8
    }
    while (i < image.length) {
      if (((image(i) ^ bytes(at + i)) & mask(i)) != 0) return false
      i += 1
    }
    true
  }

  /** Where index `at` of a byte array is for `Platform`. */
  def offset(at: Int): Long = Platform.BYTE_ARRAY_OFFSET + at.toLong

  private def inOrder(value: Int): Int = if (isNative) value else Integer.reverseBytes(value)

  private def inOrder(value: Long): Long = if (isNative) value else java.lang.Long.reverseBytes(value)
}
