package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.UnsafeRow
import org.apache.spark.sql.catalyst.expressions.codegen.UnsafeRowWriter
import org.apache.spark.sql.types.{BinaryType, StructType}

/** `recordType=ByteArray`: a record is the bytes of the table's only column. */
private[tfrecord] object ByteArrays {

  /** The name that the column has when nobody gave a schema, as with older connectors. */
  val Schema: StructType = new StructType().add("byteArray", BinaryType)

  def onlyColumn(columns: IndexedSeq[FeatureColumn]): FeatureColumn = columns match {
    case Seq(column) if column.dataType == BinaryType => column
    case _ =>
      throw new TFRecordException(
        "recordType=ByteArray needs a table of one binary column, got " +
          s"${columns.map(column => s"${column.name} ${column.dataType.simpleString}").mkString(", ")}.")
  }
}

private[tfrecord] final class ByteArraySerializer(column: FeatureColumn) extends RecordSerializer {
  override def write(row: InternalRow, records: RecordWriter): Unit = {
    if (row.isNullAt(0)) throw TFRecordException.nullValue(column.name)
    val bytes = ListEncoder.bytesOf(row, 0, isBinary = true)
    val start = records.start(bytes.numBytes())
    bytes.writeToMemory(records.buffer, LittleEndian.offset(start))
    records.finish()
  }
}

/** @param isRequired whether the row holds the column, or nothing */
private[tfrecord] final class ByteArrayDeserializer(isRequired: Boolean) extends RecordDeserializer {
  private val row = new UnsafeRowWriter(if (isRequired) 1 else 0)
  private var pending = false

  override def start(bytes: Array[Byte], start: Int, length: Int): Unit = {
    row.reset()
    row.zeroOutNullBytes()
    if (isRequired) row.write(0, bytes, start, length)
    pending = true
  }

  override def hasNext: Boolean = pending

  override def next(): UnsafeRow = {
    pending = false
    row.getRow
  }
}
