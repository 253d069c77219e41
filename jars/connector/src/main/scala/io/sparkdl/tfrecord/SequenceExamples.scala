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
  private val writers = lists.map { case (column, i) => new FeatureListWriter(column, i, omitNulls) }

  override def write(row: InternalRow, records: RecordWriter): Unit = {
    val flat = contextRow(row)
    val contextSize = contextSerializer.measure(flat)
    val listsSize = writers.map(_.size(row)).sum
    val size = contextSize + (if (listsSize == 0) 0L else Wire.delimitedSize(listsSize))
    if (size > RecordWriter.MaxRecordBytes) {
      throw TFRecordException.recordTooLong(size, RecordWriter.MaxRecordBytes)
    }
    val start = records.start(size.toInt)
    var position = contextSerializer.put(flat, records.buffer, start)
    if (listsSize > 0) {
      position = Wire.putDelimitedHeader(Wire.Delimited2, listsSize, records.buffer, position)
      writers.foreach(writer => position = writer.put(row, records.buffer, position))
    }
    records.finish()
  }
}

/** Writes the feature list of one column, a Feature for each of its arrays, in two passes. */
private[tfrecord] final class FeatureListWriter(column: FeatureColumn, ordinal: Int, omitNulls: Boolean)
    extends EntryWriter {

  private val keyField = Wire.delimitedField(Wire.Delimited1, column.key)
  private val listTag = Wire.delimitedTag(column.element.list.fieldNumber)
  private val isPacked = column.element.list != ListKind.BytesList
  private val step = new GenericInternalRow(1)
  private val encoder = ListEncoder(column.step, 0)
  private var stepsSize = 0L // of all the Features, with their headers

  override def size(row: InternalRow): Long =
    if (isOmitted(row)) 0
    else {
      NullCheck.scalar(column, row, ordinal)
      val steps = row.getArray(ordinal)
      stepsSize = 0
      foreachStep(steps)(payloadSize => stepsSize += Wire.delimitedSize(Wire.delimitedSize(listSize(payloadSize))))
      Wire.delimitedSize(entrySize)
    }

  override def put(row: InternalRow, out: Array[Byte], at: Int): Int =
    if (isOmitted(row)) at
    else {
      var position = Wire.putDelimitedHeader(Wire.Delimited1, entrySize, out, at)
      System.arraycopy(keyField, 0, out, position, keyField.length)
      position = Wire.putDelimitedHeader(Wire.Delimited2, stepsSize, out, position + keyField.length)
      foreachStep(row.getArray(ordinal)) { payloadSize =>
        val size = listSize(payloadSize)
        position = Wire.putDelimitedHeader(Wire.Delimited1, Wire.delimitedSize(size), out, position)
        position = Wire.putDelimitedHeader(listTag, size, out, position)
        if (isField(payloadSize)) position = Wire.putDelimitedHeader(Wire.Delimited1, payloadSize, out, position)
        position = encoder.putPayload(step, out, position)
      }
      position
    }

  /** Lays each array into `step` and tells the size of its payload. */
  private def foreachStep(steps: ArrayData)(use: Long => Unit): Unit = {
    var i = 0
    while (i < steps.numElements()) {
      if (steps.isNullAt(i)) throw TFRecordException.nullElement(column.name, i)
      step.update(0, steps.getArray(i))
      use(encoder.payloadSize(step))
      i += 1
    }
  }

  private def entrySize: Long = keyField.length + Wire.delimitedSize(stepsSize)

  private def listSize(payloadSize: Long): Long =
    if (isField(payloadSize)) Wire.delimitedSize(payloadSize) else payloadSize

  /** An empty packed list has no field. */
  private def isField(payloadSize: Long): Boolean = isPacked && payloadSize > 0

  private def isOmitted(row: InternalRow): Boolean = omitNulls && row.isNullAt(ordinal)
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
