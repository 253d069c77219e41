package io.sparkdl.tfrecord

import java.io.OutputStream
import java.util.zip.CRC32C

import scala.collection.mutable

/**
 * A stretch of a file that begins and ends between two records.
 *
 * @param offset of its first byte
 * @param record number of its first record in the file
 * @param crc CRC-32C of its bytes
 */
private[tfrecord] final case class Segment(offset: Long, record: Long, crc: Int)

/** Counts and checksums what is written to a file, as the side-file tells it. */
private[tfrecord] final class FileDigest(out: OutputStream) extends OutputStream {
  private val whole = new CRC32C
  private val segment = new CRC32C
  private val finished = mutable.ArrayBuffer.empty[Segment]
  private var segmentOffset = 0L
  private var segmentRecord = 0L
  private var bytes = 0L

  override def write(byte: Int): Unit = write(Array(byte.toByte), 0, 1)

  override def write(content: Array[Byte], from: Int, length: Int): Unit = {
    out.write(content, from, length)
    whole.update(content, from, length)
    segment.update(content, from, length)
    bytes += length
  }

  override def flush(): Unit = out.flush()

  override def close(): Unit = out.close()

  def numBytes: Long = bytes

  def crc: Int = whole.getValue.toInt

  /** What was written so far ends with record number `records`: a segment may end here. */
  def boundary(records: Long): Unit =
    if (bytes - segmentOffset >= FileDigest.SegmentBytes) endSegment(records)

  /** The segments of the finished file. */
  def segments: Seq[Segment] = {
    if (bytes > segmentOffset) endSegment(0)
    finished.toList
  }

  private def endSegment(records: Long): Unit = {
    finished += Segment(segmentOffset, segmentRecord, segment.getValue.toInt)
    segment.reset()
    segmentOffset = bytes
    segmentRecord = records
  }
}

private[tfrecord] object FileDigest {
  final val SegmentBytes = 8L << 20
}
