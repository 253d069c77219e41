package io.sparkdl.tfrecord

import org.apache.hadoop.fs.PositionedReadable

import io.sparkdl.tfrecord.RecordWriter.{FooterBytes, HeaderBytes, LengthBytes}

/**
 * Finds where records begin, in a file of which nobody knows. A record is recognised by the checksums of its length
 * and of its data, and by the records that follow it. A payload may itself hold TFRecords; their chain breaks where the
 * payload ends, or goes on for more than `ChainBytes`. Whenever a chain breaks the answer is sought from the file's
 * start, by its headers. And the reader of the split before checks the answer against what it knows
 * ([[TFRecordRows]]), so that a wrong one is an error and never a wrong row.
 */
private[tfrecord] final class RecordSearch(in: PositionedReadable, fileLength: Long, file: String) {
  import RecordSearch._

  private val checksum = new MaskedCrc32c
  private val block = new Array[Byte](BlockBytes)
  private var blockOffset = 0L
  private var blockLength = 0

  /** The first record that begins at `from` or later; the file's length if there is none. */
  def firstFrom(from: Long): Long = {
    var offset = from
    while (offset + HeaderBytes + FooterBytes <= fileLength) {
      if (isHeader(offset)) {
        return if (isProven(offset)) offset else byHeaders(from)
      }
      offset += 1
    }
    byHeaders(from)
  }

  /** Whether a whole record lies at `offset`. */
  def isRecord(offset: Long): Boolean =
    isHeader(offset) && {
      val length = lengthAt(offset)
      val crc = new java.util.zip.CRC32C
      var at = offset + HeaderBytes
      val end = at + length
      while (at < end) {
        load(at, 1)
        val count = math.min(end - at, blockOffset + blockLength - at).toInt
        crc.update(block, (at - blockOffset).toInt, count)
        at += count
      }
      load(end, FooterBytes)
      MaskedCrc32c.masked(crc.getValue.toInt) == LittleEndian.getInt(block, (end - blockOffset).toInt)
    }

  /** Follows the headers from the file's start; all are checked. */
  private def byHeaders(from: Long): Long = {
    var offset = 0L
    var record = 0L
    while (offset < from) {
      if (!isHeader(offset)) {
        throw TFRecordException.unreadable(
          file, Some(record), record, offset, 0, "its length cannot be read: the file is damaged or truncated")
      }
      offset = after(offset)
      record += 1
    }
    offset
  }

  private def isProven(offset: Long): Boolean = {
    if (!isRecord(offset)) return false
    var next = after(offset)
    while (next < fileLength && next - offset < ChainBytes) {
      if (!isHeader(next)) return false
      next = after(next)
    }
    true
  }

  /** Whether the length at `offset` is right by its checksum, and the file long enough for it. */
  private def isHeader(offset: Long): Boolean =
    offset + HeaderBytes + FooterBytes <= fileLength && {
      val length = lengthAt(offset)
      length >= 0 && length <= fileLength - offset - HeaderBytes - FooterBytes && {
        val at = (offset - blockOffset).toInt
        checksum.of(block, at, LengthBytes) == LittleEndian.getInt(block, at + LengthBytes)
      }
    }

  private def after(offset: Long): Long = offset + HeaderBytes + lengthAt(offset) + FooterBytes

  private def lengthAt(offset: Long): Long = {
    load(offset, HeaderBytes)
    LittleEndian.getLong(block, (offset - blockOffset).toInt)
  }

  /** Brings `count` bytes from `offset` into the block. */
  private def load(offset: Long, count: Int): Unit =
    if (offset < blockOffset || offset + count > blockOffset + blockLength) {
      val length = math.min(BlockBytes.toLong, fileLength - offset).toInt
      in.readFully(offset, block, 0, length)
      blockOffset = offset
      blockLength = length
    }
}

private[tfrecord] object RecordSearch {
  private final val BlockBytes = 1 << 20
  private final val ChainBytes = 4L << 20
}
