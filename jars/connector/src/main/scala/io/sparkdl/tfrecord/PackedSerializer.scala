package io.sparkdl.tfrecord

import scala.collection.mutable

import org.apache.spark.sql.catalyst.InternalRow

/**
 * Turns `rowsPerRecord` rows into one `tf.train.Example`; the last of a file holds the rest. A feature is the values of
 * its column, row after row; where arrays vary in length, a feature `<column>/row_splits` says at which values each
 * row begins and ends (as `tf.RaggedTensor.row_splits`). A payload is the concatenation of its rows' payloads.
 */
private[tfrecord] final class PackedSerializer(columns: IndexedSeq[FeatureColumn], rowsPerRecord: Int)
    extends RecordSerializer {

  private val pieces = new Pieces
  private val packs: Array[Pack] =
    FloatRun.cover[Pack](columns)(i => new ColumnPack(columns(i), i, pieces), new FloatRunPack(_, pieces)).toArray
  private val header = new Array[Byte](11)
  private var rows = 0

  if (columns.isEmpty) throw new TFRecordException("Cannot write packed TFRecords without columns: there is no row count.")

  override def write(row: InternalRow, records: RecordWriter): Unit = {
    var i = 0
    while (i < packs.length) {
      packs(i).add(row)
      i += 1
    }
    rows += 1
    if (rows == rowsPerRecord) finish(records)
  }

  override def finish(records: RecordWriter): Unit =
    if (rows > 0) {
      val featuresSize = packs.map(_.close()).sum
      val size = Wire.delimitedSize(featuresSize)
      if (size > RecordWriter.MaxRecordBytes) {
        throw TFRecordException.recordTooLong(size, RecordWriter.MaxRecordBytes)
      }
      records.begin(size.toInt)
      records.put(header, 0, Wire.putDelimitedHeader(Wire.Delimited1, featuresSize, header, 0))
      packs.foreach(_.put(records))
      records.end()
      rows = 0
    }

  override def isEven: Boolean = rows == 0
}

/** Columns of the pack under construction. */
private[tfrecord] sealed abstract class Pack {
  def add(row: InternalRow): Unit

  /** @return the bytes that `put` will write */
  def close(): Long

  /** Writes the features; a new pack begins. */
  def put(records: RecordWriter): Unit

  protected final def sized(header: EntryPrefix, payload: Payload): Long = {
    if (header.payloadSize != payload.length) header.resize(payload.length)
    header.length.toLong + payload.length
  }

  protected final def put(header: EntryPrefix, payload: Payload, records: RecordWriter): Unit = {
    records.put(header.bytes, 0, header.length)
    payload.moveTo(records)
  }
}

/** Floats that stand side by side: the values of each column have the same length. */
private[tfrecord] final class FloatRunPack(run: FloatRun, pieces: Pieces) extends Pack {
  private val prefixes = run.columns.map(new EntryPrefix(_)).toArray
  private val values = Array.fill(run.count)(new Payload(pieces))

  override def add(row: InternalRow): Unit = {
    run.size(row) // refuses nulls
    var i = 0
    while (i < values.length) {
      val payload = values(i)
      payload.makeRoom(4)
      LittleEndian.putInt(run.bits(row, i), payload.bytes, payload.position)
      payload.position += 4
      i += 1
    }
  }

  override def close(): Long = prefixes.indices.map(i => sized(prefixes(i), values(i))).sum

  override def put(records: RecordWriter): Unit = prefixes.indices.foreach(i => put(prefixes(i), values(i), records))
}

/** One column of any type. */
private[tfrecord] final class ColumnPack(column: FeatureColumn, ordinal: Int, pieces: Pieces) extends Pack {
  private val encoder = ListEncoder(column, ordinal)
  private val prefix = new EntryPrefix(column)
  private val values = new Payload(pieces)
  private val splits = column.rowSplits.map(feature => (new EntryPrefix(feature), new Payload(pieces)))
  private var numValues = 0L

  override def add(row: InternalRow): Unit = {
    values.makeRoom(encoder.payloadSize(row))
    values.position = encoder.putPayload(row, values.bytes, values.position)
    splits.foreach { case (_, payload) =>
      if (payload.length == 0) payload.putVarint(0)
      numValues += row.getArray(ordinal).numElements()
      payload.putVarint(numValues)
    }
  }

  override def close(): Long =
    sized(prefix, values) + splits.fold(0L) { case (header, payload) => sized(header, payload) }

  override def put(records: RecordWriter): Unit = {
    put(prefix, values, records)
    splits.foreach { case (header, payload) => put(header, payload, records) }
    numValues = 0
  }
}

/** Bytes that grow, by pieces: what is there is never copied, so that a pack is held once. */
private[tfrecord] final class Payload(pieces: Pieces) {
  private val full = mutable.ArrayBuffer.empty[(Array[Byte], Int)] // pieces, and bytes used of each
  private var fullBytes = 0L

  /** The piece that is being filled, and where it goes on. */
  var bytes: Array[Byte] = Array.emptyByteArray
  var position = 0

  def length: Long = fullBytes + position

  /** Makes `bytes` have room for `numBytes` from `position` on. */
  def makeRoom(numBytes: Long): Unit = if (numBytes > bytes.length - position) {
    if (length + numBytes > RecordWriter.MaxRecordBytes) {
      throw TFRecordException.recordTooLong(length + numBytes, RecordWriter.MaxRecordBytes)
    }
    if (position > 0) full += ((bytes, position))
    fullBytes = length
    bytes = pieces.take(numBytes.toInt, fullBytes)
    position = 0
  }

  def putVarint(value: Long): Unit = {
    makeRoom(10)
    position = Wire.putVarint(value, bytes, position)
  }

  /** Hands the bytes over; none are left. */
  def moveTo(records: RecordWriter): Unit = {
    full.foreach { case (piece, used) =>
      records.put(piece, 0, used)
      pieces.giveBack(piece)
    }
    records.put(bytes, 0, position)
    full.clear()
    fullBytes = 0
    position = 0
    if (pieces.isForOneValue(bytes)) bytes = Array.emptyByteArray
  }
}

/** Pieces of the payloads of a pack, which the next pack uses again. */
private[tfrecord] final class Pieces {
  import Pieces._

  private val free = mutable.ArrayBuffer.empty[Array[Byte]]

  /** @return at least `numBytes` for a payload that has `length` already: about as many more */
  def take(numBytes: Int, length: Long): Array[Byte] =
    if (numBytes <= LongestBytes && free.nonEmpty) free.remove(free.length - 1)
    else {
      val doubled = math.min(math.max(length, FirstBytes.toLong), LongestBytes.toLong).toInt
      new Array[Byte](math.max(numBytes, doubled))
    }

  def giveBack(piece: Array[Byte]): Unit = if (piece.length == LongestBytes) free += piece

  def isForOneValue(piece: Array[Byte]): Boolean = piece.length > LongestBytes
}

private[tfrecord] object Pieces {
  private final val FirstBytes = 1 << 10
  private final val LongestBytes = 1 << 20
}
