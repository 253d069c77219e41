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

  def cannotInfer(reason: String): TFRecordException = new TFRecordException(
    s"Cannot infer the schema of TFRecord files: $reason. Give it when reading: " +
      """spark.read.schema("label bigint, pixels array<float>").format("tfrecord").load(path)."""
  )

  def shapeNeeded(verb: String, column: String, dataType: DataType): TFRecordException = new TFRecordException(
    s"Cannot $verb column `$column` (${dataType.simpleString}) as TFRecord: a feature is flat. Say the dimensions that " +
      s"""every row has, option("shapes", '{"$column": [2, 3]}'), or flatten the column."""
  )

  def wrongShape(verb: String, column: String, dataType: DataType, shape: Seq[Int]): TFRecordException =
    new TFRecordException(
      s"Cannot $verb column `$column` (${dataType.simpleString}) as TFRecord: option shapes gives it " +
        s"${shape.size} dimensions (${shape.mkString(", ")}). Give one a level of arrays."
    )

  def wrongLength(column: String, got: Int, expected: Int): TFRecordException = new TFRecordException(
    s"Cannot write an array of $got elements in column `$column` as TFRecord " +
      s"(partition ${TaskContext.getPartitionId()}): option shapes says $expected."
  )

  /** @param verb "write" or "read" */
  def unsupportedType(verb: String, column: String, dataType: DataType, advice: String): TFRecordException =
    new TFRecordException(
      s"Cannot $verb column `$column` (${dataType.simpleString}) as TFRecord: $advice."
    )

  def nullValue(column: String): TFRecordException = new TFRecordException(
    s"Cannot write null in column `$column` as TFRecord (partition ${TaskContext.getPartitionId()}). " +
      "Fill or drop nulls first, or leave them out of their record with option(\"nulls\", \"omit\")."
  )

  def nullElement(column: String, index: Int): TFRecordException = new TFRecordException(
    s"Cannot write null in element $index of array column `$column` as TFRecord " +
      s"(partition ${TaskContext.getPartitionId()}). Fill or drop nulls first."
  )

  def recordTooLong(numBytes: Long, maxBytes: Int): TFRecordException = new TFRecordException(
    s"Cannot write a row of $numBytes bytes as one TFRecord (partition ${TaskContext.getPartitionId()}): " +
      s"a record holds at most $maxBytes bytes."
  )

  /**
   * @param record its number in the file, counted from 0; none where a split began in the middle of the file
   * @param inSplit its number in the split
   * @param offset of the record's first byte in the file
   * @param splitStart first byte of the split
   */
  def unreadable(
      file: String,
      record: Option[Long],
      inSplit: Long,
      offset: Long,
      splitStart: Long,
      reason: String): TFRecordException = {
    val which = record.fold(s"record $inSplit (counted from 0 from byte $splitStart on)")(n => s"record $n (counted from 0)")
    new TFRecordException(s"Cannot read TFRecord file $file: $which at byte $offset: $reason.")
  }

  /** What the side-file says of a file, and the file does not. */
  def unlikeSideFile(file: String, what: String, found: Any, written: Any): TFRecordException = new TFRecordException(
    s"Cannot read TFRecord file $file: it has $found $what, ${SideFile.Name} says $written: the file was damaged or " +
      "changed after it was written. Write it again, or read what there is with option(\"sideFile\", \"false\")."
  )

  def missingFiles(folder: String, missing: Seq[String]): TFRecordException = new TFRecordException(
    s"Cannot read TFRecord files in $folder: ${missing.size} of the files that ${SideFile.Name} lists are missing " +
      s"""(first: ${missing.head}). Write them again, or read what there is with option("sideFile", "false")."""
  )
}

/** A reason why the bytes of a record cannot become a row; whoever knows the file adds where. */
private[tfrecord] final class BadRecord(reason: String) extends RuntimeException(reason, null, false, false)
