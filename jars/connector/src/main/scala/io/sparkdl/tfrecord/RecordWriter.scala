package io.sparkdl.tfrecord

import java.io.{Closeable, OutputStream}

/**
 * Frames records and hands them to `out` in large pieces. A record is
 *
 * {{{
 *   uint64 length | uint32 masked CRC-32C of length | length bytes of data | uint32 masked CRC-32C of data
 * }}}
 *
 * little-endian. Use: `start(length)`, fill `buffer` from the index that it returns, `finish()`; or, for a record that
 * shall not be held whole, `begin(length)`, `put` of its pieces, `end()`.
 *
 * @param onFlush told the number of records so far whenever all their bytes have been handed to `out`
 */
private[tfrecord] final class RecordWriter(out: OutputStream, onFlush: Long => Unit = _ => ()) extends Closeable {
  import RecordWriter._

  private val checksum = new MaskedCrc32c
  private var bytes = new Array[Byte](BufferBytes)
  private var filled = 0 // bytes of the buffer that hold records
  private var dataLength = 0 // of the record, or what `put` has still to bring of it
  private val footer = new Array[Byte](FooterBytes)
  private var flushedBytes = 0L

  /** Finished records, and their bytes before any compression. */
  var numRecords = 0L
  def numBytes: Long = flushedBytes + filled

  def buffer: Array[Byte] = bytes

  /** Makes room for a record of `length` bytes and returns the index of its data in `buffer`. */
  def start(length: Int): Int = {
    require(length >= 0 && length <= MaxRecordBytes, s"a record of $length bytes")
    makeRoom(HeaderBytes + length + FooterBytes)
    dataLength = length
    filled + HeaderBytes
  }

  def finish(): Unit = {
    val data = filled + HeaderBytes
    LittleEndian.putLong(dataLength.toLong, bytes, filled)
    LittleEndian.putInt(checksum.of(bytes, filled, LengthBytes), bytes, filled + LengthBytes)
    LittleEndian.putInt(checksum.of(bytes, data, dataLength), bytes, data + dataLength)
    filled = data + dataLength + FooterBytes
    numRecords += 1
  }

  /** Begins a record of `length` bytes, which follow by `put`. */
  def begin(length: Int): Unit = {
    require(length >= 0 && length <= MaxRecordBytes, s"a record of $length bytes")
    if (HeaderBytes + length + FooterBytes > bytes.length - filled) flush()
    dataLength = length
    LittleEndian.putLong(length.toLong, bytes, filled)
    LittleEndian.putInt(checksum.of(bytes, filled, LengthBytes), bytes, filled + LengthBytes)
    filled += HeaderBytes
    checksum.reset()
  }

  def put(from: Array[Byte], start: Int, count: Int): Unit = {
    checksum.update(from, start, count)
    dataLength -= count
    putUnchecked(from, start, count)
  }

  def end(): Unit = {
    require(dataLength == 0, s"a record is longer or shorter than was said, by $dataLength bytes")
    LittleEndian.putInt(checksum.value, footer, 0)
    putUnchecked(footer, 0, FooterBytes)
    numRecords += 1
  }

  override def close(): Unit =
    try flush()
    finally out.close()

  private def makeRoom(numBytes: Int): Unit =
    if (numBytes > bytes.length - filled) {
      flush()
      if (numBytes > bytes.length) bytes = new Array[Byte](numBytes)
    }

  private def putUnchecked(from: Array[Byte], start: Int, count: Int): Unit = {
    if (count > bytes.length - filled) handOver()
    if (count > bytes.length) {
      out.write(from, start, count)
      flushedBytes += count
    } else {
      System.arraycopy(from, start, bytes, filled, count)
      filled += count
    }
  }

  /** Between two records. */
  private def flush(): Unit = {
    handOver()
    onFlush(numRecords)
  }

  private def handOver(): Unit = {
    out.write(bytes, 0, filled)
    flushedBytes += filled
    filled = 0
  }
}

private[tfrecord] object RecordWriter {
  final val LengthBytes = 8
  final val HeaderBytes = LengthBytes + 4
  final val FooterBytes = 4

  /** The longest record that fits, with its frame, into a byte array of the JVM. */
  final val MaxRecordBytes = Int.MaxValue - 15 - HeaderBytes - FooterBytes

  private final val BufferBytes = 1 << 20
}
