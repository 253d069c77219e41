package io.sparkdl.tfrecord

import java.io.{Closeable, OutputStream}

/**
 * Frames records and hands them to `out` in large pieces. A record is
 *
 * {{{
 *   uint64 length | uint32 masked CRC-32C of length | length bytes of data | uint32 masked CRC-32C of data
 * }}}
 *
 * little-endian. Use: `start(length)`, fill `buffer` from the index that it returns, `finish()`.
 *
 * @param onFlush told the number of records so far whenever all their bytes have been handed to `out`
 */
private[tfrecord] final class RecordWriter(out: OutputStream, onFlush: Long => Unit = _ => ()) extends Closeable {
  import RecordWriter._

  private val checksum = new MaskedCrc32c
  private var bytes = new Array[Byte](BufferBytes)
  private var end = 0 // of the finished records in the buffer
  private var dataLength = 0
  private var flushedBytes = 0L

  /** Finished records, and their bytes before any compression. */
  var numRecords = 0L
  def numBytes: Long = flushedBytes + end

  def buffer: Array[Byte] = bytes

  /** Makes room for a record of `length` bytes and returns the index of its data in `buffer`. */
  def start(length: Int): Int = {
    require(length >= 0 && length <= MaxRecordBytes, s"a record of $length bytes")
    makeRoom(HeaderBytes + length + FooterBytes)
    dataLength = length
    end + HeaderBytes
  }

  def finish(): Unit = {
    val data = end + HeaderBytes
    LittleEndian.putLong(dataLength.toLong, bytes, end)
    LittleEndian.putInt(checksum.of(bytes, end, LengthBytes), bytes, end + LengthBytes)
    LittleEndian.putInt(checksum.of(bytes, data, dataLength), bytes, data + dataLength)
    end = data + dataLength + FooterBytes
    numRecords += 1
  }

  override def close(): Unit =
    try flush()
    finally out.close()

  private def makeRoom(numBytes: Int): Unit =
    if (numBytes > bytes.length - end) {
      flush()
      if (numBytes > bytes.length) bytes = new Array[Byte](numBytes)
    }

  private def flush(): Unit = {
    out.write(bytes, 0, end)
    flushedBytes += end
    end = 0
    onFlush(numRecords)
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
