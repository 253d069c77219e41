package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.InternalRow

/**
 * Turns `rowsPerRecord` rows into one `tf.train.Example`; the last of a file holds the rest. A feature is the values of
 * its column, row after row; where arrays vary in length, a feature `<column>/row_splits` says at which values each
 * row begins and ends (as `tf.RaggedTensor.row_splits`). A payload is the concatenation of its rows' payloads.
 */
private[tfrecord] final class PackedSerializer(columns: IndexedSeq[FeatureColumn], rowsPerRecord: Int)
    extends RecordSerializer {

  private val packs: Array[Pack] =
    FloatRun.cover[Pack](columns)(i => new ColumnPack(columns(i), i), new FloatRunPack(_)).toArray
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
      val start = records.start(size.toInt)
      var position = Wire.putDelimitedHeader(Wire.Delimited1, featuresSize, records.buffer, start)
      packs.foreach(pack => position = pack.put(records.buffer, position))
      records.finish()
      rows = 0
    }

  override def isEven: Boolean = rows == 0
}

/** Columns of the pack under construction. */
private[tfrecord] sealed abstract class Pack {
  def add(row: InternalRow): Unit

  /** @return the bytes that `put` will write */
  def close(): Long

  /** Writes the features and returns the position after them; a new pack begins. */
  def put(out: Array[Byte], at: Int): Int

  protected final def sized(header: EntryPrefix, payload: Payload): Long = {
    if (header.payloadSize != payload.length) header.resize(payload.length.toLong)
    header.length.toLong + payload.length
  }

  protected final def put(header: EntryPrefix, payload: Payload, out: Array[Byte], at: Int): Int = {
    System.arraycopy(header.bytes, 0, out, at, header.length)
    System.arraycopy(payload.bytes, 0, out, at + header.length, payload.length)
    val end = at + header.length + payload.length
    payload.length = 0
    end
  }
}

/** Floats that stand side by side: the values of each column have the same length. */
private[tfrecord] final class FloatRunPack(run: FloatRun) extends Pack {
  private val prefixes = run.columns.map(new EntryPrefix(_)).toArray
  private val values = Array.fill(run.count)(new Payload)

  override def add(row: InternalRow): Unit = {
    run.size(row) // refuses nulls
    var i = 0
    while (i < values.length) {
      val payload = values(i)
      LittleEndian.putInt(run.bits(row, i), payload.room(4), payload.length)
      payload.length += 4
      i += 1
    }
  }

  override def close(): Long = prefixes.indices.map(i => sized(prefixes(i), values(i))).sum

  override def put(out: Array[Byte], at: Int): Int =
    prefixes.indices.foldLeft(at)((position, i) => put(prefixes(i), values(i), out, position))
}

/** One column of any type. */
private[tfrecord] final class ColumnPack(column: FeatureColumn, ordinal: Int) extends Pack {
  private val encoder = ListEncoder(column, ordinal)
  private val prefix = new EntryPrefix(column)
  private val values = new Payload
  private val splits = column.rowSplits.map(feature => (new EntryPrefix(feature), new Payload))
  private var numValues = 0L

  override def add(row: InternalRow): Unit = {
    val size = encoder.payloadSize(row)
    encoder.putPayload(row, values.room(size), values.length)
    values.length += size.toInt
    splits.foreach { case (_, payload) =>
      if (payload.length == 0) payload.putVarint(0)
      numValues += row.getArray(ordinal).numElements()
      payload.putVarint(numValues)
    }
  }

  override def close(): Long =
    sized(prefix, values) + splits.fold(0L) { case (header, payload) => sized(header, payload) }

  override def put(out: Array[Byte], at: Int): Int = {
    var position = put(prefix, values, out, at)
    splits.foreach { case (header, payload) => position = put(header, payload, out, position) }
    numValues = 0
    position
  }
}

/** Bytes that grow. */
private[tfrecord] final class Payload {
  var bytes = new Array[Byte](1 << 10)
  var length = 0

  /** @return the array, with room for `numBytes` more */
  def room(numBytes: Long): Array[Byte] = {
    val needed = length + numBytes
    if (needed > bytes.length) {
      if (needed > RecordWriter.MaxRecordBytes) {
        throw TFRecordException.recordTooLong(needed, RecordWriter.MaxRecordBytes)
      }
      val grown = math.min(math.max(needed, 2L * bytes.length), RecordWriter.MaxRecordBytes.toLong)
      bytes = java.util.Arrays.copyOf(bytes, grown.toInt)
    }
    bytes
  }

  def putVarint(value: Long): Unit = length = Wire.putVarint(value, room(10), length)
}
