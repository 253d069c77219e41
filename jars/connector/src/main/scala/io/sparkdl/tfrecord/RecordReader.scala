package io.sparkdl.tfrecord

import java.io.{Closeable, InputStream}

import io.sparkdl.tfrecord.RecordWriter.{FooterBytes, HeaderBytes, LengthBytes, MaxRecordBytes}

/**
 * The records of a TFRecord file one after the other (frame: see [[RecordWriter]]), through a window of the file that
 * is reused and grows with its longest record. The length's checksum is checked before the length is believed, and
 * the window grows only as bytes arrive, so that a wrong length allocates nothing.
 *
 * A file that was cut between two records, or lost a whole record, looks sound: the format has no count.
 *
 * @param in the file from byte `from` on
 * @param file how errors call the file
 * @param from where the first record begins
 * @param until records that begin there or later are not read
 * @param firstRecord number of the first record in the file; none if unknown
 */
private[tfrecord] final class RecordReader(
    in: InputStream,
    file: String,
    from: Long = 0,
    until: Long = Long.MaxValue,
    firstRecord: Option[Long] = Some(0))
    extends Closeable {

  private val checksum = new MaskedCrc32c
  private var window = new Array[Byte](RecordReader.WindowBytes)
  private var position = 0 // of the next record, in the window
  private var limit = 0 // of the bytes that the window holds
  private var dataLength = 0
  private var recordIndex = -1L
  private var recordOffset = from
  private var upcoming = from

  /** Holds the data of the current record: `length` bytes from `start`. */
  def buffer: Array[Byte] = window
  def start: Int = position - FooterBytes - dataLength
  def length: Int = dataLength

  /** Where the record after the current one begins. */
  def nextOffset: Long = upcoming

  /** Records that were read, the current one included. */
  def numRecords: Long = recordIndex + 1

  /** Moves to the next record and checks it; false at the end. */
  def next(): Boolean = {
    recordOffset = upcoming
    if (recordOffset >= until) return false
    val available = fill(HeaderBytes)
    if (available == 0) return false
    recordIndex += 1
    if (available < HeaderBytes) throw truncated(HeaderBytes, available)
    dataLength = checkedLength()

    val size = HeaderBytes + dataLength + FooterBytes
    if (fill(size) < size) throw truncated(size, limit - position)
    position += size
    upcoming += size
    checkData()
    true
  }

  /** The error of the current record. */
  def failure(reason: String): TFRecordException =
    TFRecordException.unreadable(file, firstRecord.map(_ + recordIndex), math.max(recordIndex, 0), recordOffset, from, reason)

  /** The error of what should be a record at byte `offset`, after the current one. */
  def failureAt(offset: Long, reason: String): TFRecordException =
    TFRecordException.unreadable(file, firstRecord.map(_ + numRecords), numRecords, offset, from, reason)

  /** Whether the current record's frame is whole: then the next one can be found. */
  def canGoOn: Boolean = upcoming > recordOffset

  override def close(): Unit = in.close()

  private def checkedLength(): Int = {
    checkCrc("length", position, LengthBytes)
    val length = LittleEndian.getLong(window, position)
    if (length < 0 || length > MaxRecordBytes) {
      throw failure(
        s"its length is ${java.lang.Long.toUnsignedString(length)} bytes, at most $MaxRecordBytes can be read"
      )
    }
    length.toInt
  }

  private def checkData(): Unit = checkCrc("data", start, dataLength)

  private def checkCrc(what: String, from: Int, numBytes: Int): Unit = {
    val stored = LittleEndian.getInt(window, from + numBytes)
    val computed = checksum.of(window, from, numBytes)
    if (stored != computed) {
      throw failure(f"$what CRC-32C is 0x$computed%08x, the file says 0x$stored%08x: the file is damaged")
    }
  }

  private def truncated(size: Int, available: Int): TFRecordException =
    failure(s"the file ends after $available of at least $size bytes: the file is truncated")

  /** Reads until `numBytes` from `position` are in the window or the file ends; returns how many are there. */
  private def fill(numBytes: Int): Int = {
    var ended = false
    while (limit - position < numBytes && !ended) {
      if (numBytes > window.length - position) makeRoom(numBytes)
      val count = in.read(window, limit, window.length - limit)
      if (count < 0) ended = true else limit += count
    }
    limit - position
  }

  /**
   * Moves what is unread to the front. Where the window is full all the same, the record has shown at least
   * `WindowBytes`: then it gets room for all of it, at most `TrustedBytes`, and after that at most twice as much.
   */
  private def makeRoom(numBytes: Int): Unit = {
    val unread = limit - position
    val target =
      if (unread < window.length) window
      else new Array[Byte](math.min(numBytes.toLong, math.max(RecordReader.TrustedBytes, 2L * window.length)).toInt)
    System.arraycopy(window, position, target, 0, unread)
    window = target
    position = 0
    limit = unread
  }
}

private[tfrecord] object RecordReader {
  private final val WindowBytes = 1 << 20
  // More than this is never allocated for what has not been read; and no record up to it is copied as it grows.
  private final val TrustedBytes = 64L << 20
}
