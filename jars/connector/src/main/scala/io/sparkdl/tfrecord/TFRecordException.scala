package io.sparkdl.tfrecord

import org.apache.spark.TaskContext
import org.apache.spark.sql.types.DataType

/**
 * Whatever the connector refuses: an option, a column's type, a null, a damaged file.
 *
 * It is an `IllegalArgumentException`, so that a refusal on the driver reaches Python as
 * `pyspark.errors.IllegalArgumentException` with the bare message.
 */
final class TFRecordException(message: String, cause: Throwable)
    extends IllegalArgumentException(message, cause) {

  def this(message: String) = this(message, null)
}

private[tfrecord] object TFRecordException {

  def unsupportedOption(name: String, value: String, supported: Seq[String]): TFRecordException =
    new TFRecordException(
      s"Option $name=$value is not supported for TFRecord. Supported: ${supported.mkString(", ")}."
    )

  def schemaNeeded(): TFRecordException = new TFRecordException(
    "Cannot infer the schema of TFRecord files. Give it when reading: " +
      """spark.read.schema("label bigint, pixels array<float>").format("tfrecord").load(path)."""
  )

  /** @param verb "write" or "read" */
  def unsupportedType(verb: String, column: String, dataType: DataType, advice: String): TFRecordException =
    new TFRecordException(
      s"Cannot $verb column `$column` (${dataType.simpleString}) as TFRecord: $advice."
    )

  def nullValue(column: String): TFRecordException = new TFRecordException(
    s"Cannot write null in column `$column` as TFRecord (partition ${TaskContext.getPartitionId()}). " +
      "Fill or drop nulls first."
  )

  def nullElement(column: String, index: Int): TFRecordException = new TFRecordException(
    s"Cannot write null in element $index of array column `$column` as TFRecord " +
      s"(partition ${TaskContext.getPartitionId()}). Fill or drop nulls first."
  )

  def recordTooLong(numBytes: Long, maxBytes: Int): TFRecordException = new TFRecordException(
    s"Cannot write a row of $numBytes bytes as one TFRecord (partition ${TaskContext.getPartitionId()}): " +
      s"a record holds at most $maxBytes bytes."
  )

  /** @param recordIndex counted from 0; @param offset of the record's first byte in the file */
  def unreadable(file: String, recordIndex: Long, offset: Long, reason: String): TFRecordException =
    new TFRecordException(
      s"Cannot read TFRecord file $file: record $recordIndex (counted from 0) at byte $offset: $reason."
    )
}

/** A reason why the bytes of a record cannot become a row; whoever knows the file adds where. */
private[tfrecord] final class BadRecord(reason: String) extends RuntimeException(reason, null, false, false)
