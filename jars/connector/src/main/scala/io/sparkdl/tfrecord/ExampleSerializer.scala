package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.InternalRow

/** Turns flat rows into records. */
private[tfrecord] abstract class RecordSerializer {

  def write(row: InternalRow, records: RecordWriter): Unit

  /** Writes what is kept back; call it once, after the last row. */
  def finish(records: RecordWriter): Unit = ()

  /** Whether all rows so far are in records. */
  def isEven: Boolean = true
}

private[tfrecord] object RecordSerializer {

  def apply(columns: IndexedSeq[FeatureColumn], options: TFRecordOptions): RecordSerializer =
    options.recordType match {
      case TFRecordOptions.ByteArray => new ByteArraySerializer(ByteArrays.onlyColumn(columns))
      case TFRecordOptions.SequenceExample => new SequenceExampleSerializer(columns, options.omitNulls)
      case _ if options.rowsPerRecord > 1 => new PackedSerializer(columns, options.rowsPerRecord)
      case _ => new ExampleSerializer(columns, omitNulls = options.omitNulls)
    }
}

/**
 * Turns rows into the bytes of a `tf.train.Example`, features in the order of the columns. Two passes a row:
 * `measure`, then `put` of the same row. No protobuf object is made.
 *
 * @param maxBytes the longest Example that is written; a byte array holds no more
 * @param omitNulls whether a null's feature is left out
 */
private[tfrecord] final class ExampleSerializer(
    columns: IndexedSeq[FeatureColumn],
    maxBytes: Int = RecordWriter.MaxRecordBytes,
    omitNulls: Boolean = false)
    extends RecordSerializer {

  private val entries: Array[EntryWriter] = {
    def alone(i: Int): EntryWriter = new OneEntry(columns(i), i, omitNulls)
    if (omitNulls) columns.indices.map(alone).toArray
    else FloatRun.cover[EntryWriter](columns)(alone, new EntriesOfRun(_)).toArray
  }
  private var featuresSize = 0

  /** Bytes of `row` as an Example. */
  def measure(row: InternalRow): Int = {
    var size = 0L
    var i = 0
    while (i < entries.length) {
      size += entries(i).size(row)
      i += 1
    }
    val exampleSize = Wire.delimitedSize(size)
    if (exampleSize > maxBytes) throw TFRecordException.recordTooLong(exampleSize, maxBytes)
    featuresSize = size.toInt
    exampleSize.toInt
  }

  /** Writes the row that was measured last and returns the position after it. */
  def put(row: InternalRow, out: Array[Byte], at: Int): Int = {
    var position = Wire.putDelimitedHeader(Wire.Delimited1, featuresSize.toLong, out, at)
    var i = 0
    while (i < entries.length) {
      position = entries(i).put(row, out, position)
      i += 1
    }
    position
  }

  override def write(row: InternalRow, records: RecordWriter): Unit = {
    val start = records.start(measure(row))
    put(row, records.buffer, start)
    records.finish()
  }
}

/** Writes map entries of an Example, in two passes. */
private[tfrecord] abstract class EntryWriter {

  /** Bytes of the entries, which `put` will write; nulls are refused here. */
  def size(row: InternalRow): Long

  /** Writes the entries of the row that was measured last and returns the position after them. */
  def put(row: InternalRow, out: Array[Byte], at: Int): Int
}

/** The entry of one column. */
private[tfrecord] final class OneEntry(column: FeatureColumn, ordinal: Int, omitNulls: Boolean) extends EntryWriter {
  private val encoder = ListEncoder(column, ordinal)
  private val prefix = new EntryPrefix(column)

  override def size(row: InternalRow): Long =
    if (isOmitted(row)) 0
    else {
      val payloadSize = encoder.payloadSize(row)
      if (payloadSize != prefix.payloadSize) prefix.resize(payloadSize)
      prefix.length + payloadSize
    }

  override def put(row: InternalRow, out: Array[Byte], at: Int): Int =
    if (isOmitted(row)) at
    else {
      System.arraycopy(prefix.bytes, 0, out, at, prefix.length)
      encoder.putPayload(row, out, at + prefix.length)
    }

  private def isOmitted(row: InternalRow): Boolean = omitNulls && row.isNullAt(ordinal)
}

/** The entries of floats that stand side by side. */
private[tfrecord] final class EntriesOfRun(run: FloatRun) extends EntryWriter {
  override def size(row: InternalRow): Long = run.size(row)
  override def put(row: InternalRow, out: Array[Byte], at: Int): Int = run.put(row, out, at)
}

/**
 * What stands before a column's payload: the headers of the map entry, its key, the Feature, the list and, for numbers,
 * the packed field. It depends on the payload's size only, which seldom changes from row to row, so it is kept.
 */
private[tfrecord] final class EntryPrefix(column: FeatureColumn) {
  private val keyField = Wire.delimitedField(Wire.Delimited1, column.key)
  private val listTag = Wire.delimitedTag(column.element.list.fieldNumber)
  private val isPacked = column.element.list != ListKind.BytesList

  val bytes = new Array[Byte](keyField.length + EntryPrefix.MaxHeaderBytes)
  var length: Int = 0
  var payloadSize: Long = -1

  def resize(newPayloadSize: Long): Unit = {
    payloadSize = newPayloadSize
    val isField = isPacked && payloadSize > 0 // an empty packed list has no field
    val listSize = if (isField) Wire.delimitedSize(payloadSize) else payloadSize
    val featureSize = Wire.delimitedSize(listSize)
    val entrySize = keyField.length + Wire.delimitedSize(featureSize)

    length = Wire.putDelimitedHeader(Wire.Delimited1, entrySize, bytes, 0)
    System.arraycopy(keyField, 0, bytes, length, keyField.length)
    length += keyField.length
    length = Wire.putDelimitedHeader(Wire.Delimited2, featureSize, bytes, length)
    length = Wire.putDelimitedHeader(listTag, listSize, bytes, length)
    if (isField) length = Wire.putDelimitedHeader(Wire.Delimited1, payloadSize, bytes, length)
  }
}

private[tfrecord] object EntryPrefix {
  // Four headers, of entry, Feature, list and packed field: a tag and a varint of at most 10 bytes each.
  private final val MaxHeaderBytes = 4 * 11
}
