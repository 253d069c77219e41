package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.expressions.UnsafeRow
import org.apache.spark.sql.catalyst.expressions.codegen.UnsafeRowWriter
import org.apache.spark.unsafe.Platform

/** Turns a record into flat rows: after `start`, as many as there are. */
private[tfrecord] abstract class RecordDeserializer {

  /** Begins with a record. Throws [[BadRecord]] where it is none of this schema. */
  def start(bytes: Array[Byte], start: Int, length: Int): Unit

  def hasNext: Boolean

  /** @return the row, good until the next call */
  def next(): UnsafeRow
}

private[tfrecord] object RecordDeserializer {

  /**
   * @param columns all that a record is expected to hold, in the order in which they were written
   * @param required the columns of the row
   */
  def apply(
      columns: IndexedSeq[FeatureColumn],
      required: IndexedSeq[FeatureColumn],
      options: TFRecordOptions): RecordDeserializer = options.recordType match {
    case TFRecordOptions.ByteArray =>
      ByteArrays.onlyColumn(columns)
      new ByteArrayDeserializer(required.nonEmpty)
    case TFRecordOptions.SequenceExample => new SequenceExampleDeserializer(columns, required, options.omitNulls)
    case _ if options.rowsPerRecord > 1 => new PackedDeserializer(columns, required)
    case _ => new ExampleDeserializer(columns, required, options.omitNulls)
  }
}

/**
 * Turns the bytes of a `tf.train.Example` into a row, in place: locates each required column's list, then decodes them
 * in the order of the columns. The row is reused.
 */
private[tfrecord] final class ExampleDeserializer(
    columns: IndexedSeq[FeatureColumn],
    required: IndexedSeq[FeatureColumn],
    omitNulls: Boolean = false)
    extends RecordDeserializer {

  private val row = new UnsafeRowWriter(required.length)
  private val decoders = required.zipWithIndex.map { case (column, i) => ListDecoder(column, i, row) }.toArray
  private val isFloat = required.map(FloatRun.isScalarFloat).toArray
  private val features = new FeatureLocator(columns, required, keepRuns = true)
  private val fieldsOffset = Platform.BYTE_ARRAY_OFFSET + UnsafeRow.calculateBitSetWidthInBytes(required.length)
  private var pending = false

  override def start(bytes: Array[Byte], start: Int, length: Int): Unit = {
    features.locate(bytes, start, length)
    pending = true
  }

  override def hasNext: Boolean = pending

  override def next(): UnsafeRow = {
    pending = false
    row.reset()
    row.zeroOutNullBytes()
    var slot = 0
    while (slot < decoders.length) {
      if (features.kinds(slot) == FeatureLocator.OfRun) slot = decodeRun(slot)
      else {
        if (!isOneFloat(slot)) decode(slot)
        else row.write(slot, LittleEndian.getInt(features.cursor.bytes, features.starts(slot)))
        slot += 1
      }
    }
    row.getRow
  }

  /** What wide tables have most, straight into the row's fields; returns the slot after the run. */
  private def decodeRun(first: Int): Int = {
    val run = features.wholeRuns(first)
    val start = features.starts(first)
    val buffer = row.getBuffer
    var i = 0
    while (i < run.count) {
      val field = fieldsOffset + 8L * (first + i)
      Platform.putLong(buffer, field, 0L)
      Platform.putInt(buffer, field, LittleEndian.getInt(features.cursor.bytes, run.valueAt(i, start)))
      i += 1
    }
    first + run.count
  }

  /** It needs no decoder. */
  private def isOneFloat(slot: Int): Boolean =
    isFloat(slot) && features.kinds(slot) == FeatureLocator.OneField && features.ends(slot) - features.starts(slot) == 4

  private def decode(slot: Int): Unit = {
    val decoder = decoders(slot)
    val needed = decoder.column.element.list
    features.kinds(slot) match {
      case FeatureLocator.OneField =>
        decoder.decodeField(features.cursor, features.starts(slot), features.ends(slot))
      case FeatureLocator.Missing if omitNulls => row.setNullAt(slot)
      case FeatureLocator.Missing => throw new BadRecord(s"${decoder.column} is not in the record")
      case kind if kind == FeatureLocator.NoList || kind == needed.fieldNumber =>
        decoder.decodeList(features.cursor, features.starts(slot), features.ends(slot))
      case kind =>
        throw new BadRecord(s"${decoder.column} needs ${needed.name}, the record has ${ListKind.nameOf(kind)}")
    }
  }
}
