package io.sparkdl.tfrecord

import java.io.FileNotFoundException

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.{FileStatus, FileSystem, Path}
import org.apache.hadoop.mapreduce.{Job, OutputCommitter}
import org.apache.spark.internal.Logging
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
 * Types are refused by [[RecordLayout]], in `prepareWrite` and `buildReader`, that is on the driver before any task
 * runs. `supportDataType` lets all pass, because it does not know the column, and Spark's message for a false would
 * hide ours.
 */
private[tfrecord] abstract class TFRecordFileFormat extends FileFormat with Serializable with Logging {

  override def inferSchema(
      session: SparkSession,
      options: Map[String, String],
      files: Seq[FileStatus]): Option[StructType] =
    SchemaInference.infer(session, new TFRecordOptions(options), files)

  override def isSplitable(session: SparkSession, options: Map[String, String], path: Path): Boolean = {
    val codec = new TFRecordOptions(options).codec
    codec.getOrElse(Codec.of(path, session.sessionState.newHadoopConf())) == Codec.Uncompressed
  }

  override def prepareWrite(
      session: SparkSession,
      job: Job,
      options: Map[String, String],
      dataSchema: StructType): OutputWriterFactory = {
    val checked = new TFRecordOptions(options)
    val columns = RecordLayout.forWrite(dataSchema, checked).columns
    RecordSerializer(columns, checked)
    checked.codec.filterNot(_.isOfTensorFlow).foreach { codec =>
      logWarning(s"TensorFlow cannot read *${codec.extension}: of compressed TFRecord files it reads gzip and deflate")
    }
    if (checked.sideFile) {
      gatherSideFiles(job.getConfiguration, SideFile(dataSchema, checked.forReaders, Map.empty))
    }
    new TFRecordOutputWriterFactory(checked)
  }

  /** By our committer, unless somebody chose another one. As Spark does for Parquet. */
  private def gatherSideFiles(conf: Configuration, writing: SideFile): Unit = {
    conf.set(TFRecordOutputCommitter.WritingKey, writing.toJson)
    if (conf.get(TFRecordFileFormat.CommitterKey) == null) {
      conf.setClassLoader(getClass.getClassLoader) // of a jar that was added to a running session
      conf.setClass(TFRecordFileFormat.CommitterKey, classOf[TFRecordOutputCommitter], classOf[OutputCommitter])
    }
  }

  override protected def buildReader(
      session: SparkSession,
      dataSchema: StructType,
      partitionSchema: StructType,
      requiredSchema: StructType,
      filters: Seq[Filter],
      options: Map[String, String],
      hadoopConf: Configuration): PartitionedFile => Iterator[InternalRow] = {
    val asked = new TFRecordOptions(options)
    val side = options.get("path").filter(_ => asked.sideFile).flatMap { path =>
      tableOf(new Path(path), hadoopConf, asked.ignoreMissingFiles)
    }
    // refused here, on the driver, by what is known here
    RecordLayout.forRead(dataSchema, asked.or(side.fold(Map.empty[String, String])(_.options)))
    val dropped = session.sparkContext.longAccumulator("TFRecord: malformed records dropped")
    val plan = ReadPlan(dataSchema, requiredSchema, asked, dropped)
    val conf = session.sparkContext.broadcast(new SerializableConfiguration(hadoopConf))
    file => TFRecordRows.open(file, conf.value.value, plan)
  }

  /** The side-file of a table that is read by its folder; all files that it lists must be there. */
  private def tableOf(folder: Path, conf: Configuration, mayMiss: Option[Boolean]): Option[SideFile] = {
    val fs = folder.getFileSystem(conf)
    val found = if (isFolder(fs, folder)) SideFile.read(fs, new Path(folder, SideFile.Name)) else None
    found.foreach { side =>
      val missing = side.files.keySet.diff(SideFiles.present(fs, folder)).toSeq.sorted
      val ignored = mayMiss.getOrElse(conf.getBoolean(TFRecordFileFormat.IgnoreMissingKey, false))
      if (missing.nonEmpty && !ignored) throw TFRecordException.missingFiles(folder.toString, missing)
    }
    found
  }

  /** A path may be a file or a pattern too. */
  private def isFolder(fs: FileSystem, path: Path): Boolean =
    try fs.getFileStatus(path).isDirectory
    catch { case _: FileNotFoundException => false }

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

private[tfrecord] object TFRecordFileFormat {
  final val IgnoreMissingKey = "spark.sql.files.ignoreMissingFiles"
  final val CommitterKey = "spark.sql.sources.outputCommitterClass"
}
