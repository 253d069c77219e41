package io.sparkdl.tfrecord

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.{FileStatus, Path}
import org.apache.hadoop.mapreduce.Job
import org.apache.spark.sql.SparkSession
import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.execution.datasources.{FileFormat, OutputWriterFactory, PartitionedFile}
import org.apache.spark.sql.sources.{DataSourceRegister, Filter}
import org.apache.spark.sql.types.StructType
import org.apache.spark.util.SerializableConfiguration

/** `format("tfrecord")`. */
final class TFRecordSource extends TFRecordFileFormat with DataSourceRegister {
  override def shortName(): String = "tfrecord"
}

/** `format("tfrecords")`, the same format under the name that older connectors gave it. */
final class TFRecordsSource extends TFRecordFileFormat with DataSourceRegister {
  override def shortName(): String = "tfrecords"
}

/**
 * TFRecord files as a table: a row is a `tf.train.Example`, a column is a feature of the same name. Spark's file source
 * around it brings partition folders, save modes, the commit protocol, `maxRecordsPerFile` and `_metadata`.
 *
 * Types are refused by [[SchemaCheck]], in `prepareWrite` and `buildReader`, that is on the driver before any task
 * runs. `supportDataType` lets all pass, because it does not know the column, and Spark's message for a false would
 * hide ours.
 */
private[tfrecord] abstract class TFRecordFileFormat extends FileFormat with Serializable {

  override def inferSchema(
      session: SparkSession,
      options: Map[String, String],
      files: Seq[FileStatus]): Option[StructType] = throw TFRecordException.schemaNeeded()

  override def isSplitable(session: SparkSession, options: Map[String, String], path: Path): Boolean = false

  override def prepareWrite(
      session: SparkSession,
      job: Job,
      options: Map[String, String],
      dataSchema: StructType): OutputWriterFactory = {
    new TFRecordOptions(options)
    SchemaCheck.forWrite(dataSchema)
    new TFRecordOutputWriterFactory
  }

  override protected def buildReader(
      session: SparkSession,
      dataSchema: StructType,
      partitionSchema: StructType,
      requiredSchema: StructType,
      filters: Seq[Filter],
      options: Map[String, String],
      hadoopConf: Configuration): PartitionedFile => Iterator[InternalRow] = {
    new TFRecordOptions(options)
    val columns = SchemaCheck.forRead(dataSchema)
    val required = SchemaCheck.forRead(requiredSchema)
    val conf = session.sparkContext.broadcast(new SerializableConfiguration(hadoopConf))
    file => TFRecordRows.open(file, conf.value.value, columns, required)
  }

  /** Rows are unsafe rows already: without partition values to append they need no copy. */
  override def buildReaderWithPartitionValues(
      session: SparkSession,
      dataSchema: StructType,
      partitionSchema: StructType,
      requiredSchema: StructType,
      filters: Seq[Filter],
      options: Map[String, String],
      hadoopConf: Configuration): PartitionedFile => Iterator[InternalRow] =
    if (partitionSchema.isEmpty) {
      buildReader(session, dataSchema, partitionSchema, requiredSchema, filters, options, hadoopConf)
    } else {
      super.buildReaderWithPartitionValues(
        session, dataSchema, partitionSchema, requiredSchema, filters, options, hadoopConf)
    }

  override def toString: String = "TFRecord"

  override def equals(other: Any): Boolean = other.isInstanceOf[TFRecordFileFormat]

  override def hashCode(): Int = classOf[TFRecordFileFormat].hashCode()
}
