package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.{BoundReference, GenericInternalRow, UnsafeProjection, UnsafeRow}
import org.apache.spark.sql.catalyst.expressions.codegen.UnsafeRowWriter
import org.apache.spark.sql.catalyst.util.{ArrayData, GenericArrayData}

/**
 * `tf.train.SequenceExample`: scalars and arrays are features of its context, arrays of arrays are its feature lists.
 *
 * {{{
 *   SequenceExample { Features context = 1; FeatureLists feature_lists = 2 }
 *   FeatureLists    { repeated entry { string key = 1; FeatureList value = 2 } feature_list = 1 }
 *   FeatureList     { repeated Feature feature = 1 }
 * }}}
 *
 * So a SequenceExample without feature lists is, byte for byte, an Example of its context.
 */
private[tfrecord] final class SequenceExampleSerializer(columns: IndexedSeq[FeatureColumn], omitNulls: Boolean)
    extends RecordSerializer {

  private val context = columns.zipWithIndex.filterNot(_._1.isSequence)
  private val lists = columns.zipWithIndex.filter(_._1.isSequence)
  private val contextSerializer = new ExampleSerializer(context.map(_._1), omitNulls = omitNulls)
  private val contextRow = UnsafeProjection.create(context.map { case (column, i) =>
    BoundReference(i, column.dataType, nullable = true)
  })
  private val payload = new Payload

  override def write(row: InternalRow, records: RecordWriter): Unit = {
    val flat = contextRow(row)
    val contextSize = contextSerializer.measure(flat)
    payload.length = 0
    lists.foreach { case (column, i) => if (!(omitNulls && row.isNullAt(i))) putList(column, row, i) }
    val listsSize = if (payload.length == 0) 0L else Wire.delimitedSize(payload.length.toLong)
    val size = contextSize + listsSize
    if (size > RecordWriter.MaxRecordBytes) {
      throw TFRecordException.recordTooLong(size, RecordWriter.MaxRecordBytes)
    }
    val start = records.start(size.toInt)
    val position = contextSerializer.put(flat, records.buffer, start)
    if (listsSize > 0) {
      val at = Wire.putDelimitedHeader(Wire.Delimited2, payload.length.toLong, records.buffer, position)
      System.arraycopy(payload.bytes, 0, records.buffer, at, payload.length)
    }
    records.finish()
  }

  private def putList(column: FeatureColumn, row: InternalRow, ordinal: Int): Unit = {
    if (row.isNullAt(ordinal)) throw TFRecordException.nullValue(column.name)
    val steps = row.getArray(ordinal)
    val features = (0 until steps.numElements()).map { i =>
      if (steps.isNullAt(i)) throw TFRecordException.nullElement(column.name, i)
      feature(column, steps.getArray(i))
    }
    val list = features.map(Wire.delimitedField(Wire.Delimited1, _)).toArray.flatten
    val entry = Wire.delimitedField(Wire.Delimited1, column.key) ++ Wire.delimitedField(Wire.Delimited2, list)
    val bytes = Wire.delimitedField(Wire.Delimited1, entry)
    System.arraycopy(bytes, 0, payload.room(bytes.length.toLong), payload.length, bytes.length)
    payload.length += bytes.length
  }

  /** A Feature: its list, and in it, for numbers, the packed field. */
  private def feature(column: FeatureColumn, values: ArrayData): Array[Byte] = {
    val encoder = ListEncoder(column.step, 0)
    val row = new GenericInternalRow(Array[Any](values))
    val content = new Array[Byte](encoder.payloadSize(row).toInt)
    encoder.putPayload(row, content, 0)
    val isField = column.element.list != ListKind.BytesList && content.nonEmpty
    val list = if (isField) Wire.delimitedField(Wire.Delimited1, content) else content
    Wire.delimitedField(Wire.delimitedTag(column.element.list.fieldNumber), list)
  }
}

/** The way back: the context as an Example, then the feature lists. */
private[tfrecord] final class SequenceExampleDeserializer(
    columns: IndexedSeq[FeatureColumn],
    required: IndexedSeq[FeatureColumn],
    omitNulls: Boolean)
    extends RecordDeserializer {

  private val context = new ExampleDeserializer(
    columns.filterNot(_.isSequence), required.filterNot(_.isSequence), omitNulls)
  private val contextColumns = required.filterNot(_.isSequence)
  private val lists = required.filter(_.isSequence)
  private val steps = lists.map(column => new StepDecoder(column))
  private val values = new GenericInternalRow(required.length)
  private val toUnsafe = UnsafeProjection.create(required.map(_.dataType).toArray)
  private var pending = false

  override def start(bytes: Array[Byte], start: Int, length: Int): Unit = {
    context.start(bytes, start, length)
    val flat = context.next()
    val found = locate(bytes, start, length)
    required.zipWithIndex.foreach { case (column, i) =>
      values.update(
        i,
        if (column.isSequence) listOf(lists.indexOf(column), found, bytes)
        else flat.get(contextColumns.indexOf(column), column.dataType))
    }
    pending = true
  }

  override def hasNext: Boolean = pending

  override def next(): UnsafeRow = {
    pending = false
    toUnsafe(values)
  }

  private def listOf(index: Int, found: Array[(Int, Int)], bytes: Array[Byte]): ArrayData =
    if (found(index) != null) steps(index).decode(bytes, found(index)._1, found(index)._2)
    else if (omitNulls) null
    else throw new BadRecord(s"${lists(index)} is not in the record")

  /** @return of each list that is required, where its FeatureList lies */
  private def locate(bytes: Array[Byte], start: Int, length: Int): Array[(Int, Int)] = {
    val found = new Array[(Int, Int)](lists.length)
    val names = lists.map(_.name)
    ProtoFields.foreach(bytes, start, start + length, Wire.Delimited2) { (from, to) =>
      ProtoFields.foreach(bytes, from, to, Wire.Delimited1) { (entryFrom, entryTo) =>
        var name = ""
        var value = (entryTo, entryTo)
        ProtoFields.foreach(bytes, entryFrom, entryTo, Wire.Delimited1) { (a, b) =>
          name = new String(bytes, a, b - a, "UTF-8")
        }
        ProtoFields.foreach(bytes, entryFrom, entryTo, Wire.Delimited2)((a, b) => value = (a, b))
        val index = names.indexOf(name)
        if (index >= 0) {
          if (found(index) != null) throw new BadRecord(s"${lists(index)} is in the record twice")
          found(index) = value
        }
      }
    }
    found
  }
}

/** Decodes a FeatureList: an array a Feature. */
private[tfrecord] final class StepDecoder(column: FeatureColumn) {
  private val row = new UnsafeRowWriter(1)
  private val decoder = ListDecoder(column.step, 0, row)
  private val cursor = new WireCursor

  def decode(bytes: Array[Byte], start: Int, end: Int): ArrayData = {
    cursor.bytes = bytes
    val arrays = Seq.newBuilder[Any]
    ProtoFields.foreach(bytes, start, end, Wire.Delimited1) { (from, to) =>
      row.reset()
      row.zeroOutNullBytes()
      decoder.decodeList(cursor, to, to)
      var kind = 0
      Seq(ListKind.BytesList, ListKind.FloatList, ListKind.Int64List).foreach { list =>
        ProtoFields.foreach(bytes, from, to, Wire.delimitedTag(list.fieldNumber)) { (a, b) =>
          if (kind != 0) throw new BadRecord(s"$column has two lists in one feature")
          kind = list.fieldNumber
          if (list != column.element.list) {
            throw new BadRecord(s"$column needs ${column.element.list.name}, the record has ${list.name}")
          }
          row.reset()
          row.zeroOutNullBytes()
          decoder.decodeList(cursor, a, b)
        }
      }
      arrays += row.getRow.getArray(0).copy()
    }
    new GenericArrayData(arrays.result().toArray[Any])
  }
}

/** The fields of a message, where speed does not matter. */
private[tfrecord] object ProtoFields {

  /** Calls `use` with the start and the end of each delimited field of that tag between `start` and `end`. */
  def foreach(bytes: Array[Byte], start: Int, end: Int, tag: Int)(use: (Int, Int) => Unit): Unit = {
    val cursor = new WireCursor
    cursor.bytes = bytes
    cursor.position = start
    while (cursor.position < end) {
      val found = cursor.readTag(end)
      if (found == tag) {
        val to = cursor.readEnd(end)
        use(cursor.position, to)
        cursor.position = to
      } else {
        cursor.skip(found, end)
      }
    }
  }
}
