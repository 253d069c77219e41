package io.sparkdl.tfrecord

import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.charset.{CharacterCodingException, CodingErrorAction}
import java.nio.charset.StandardCharsets.UTF_8

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.{FileStatus, Path}
import org.apache.spark.sql.SparkSession
import org.apache.spark.sql.types._
import org.apache.spark.util.SerializableConfiguration

/**
 * What the records of a sample say of a feature.
 *
 * @param kind field number of its list; 0 where all were empty
 * @param isScalar whether each record held one value
 * @param isText whether all bytes were UTF-8
 */
private[tfrecord] final case class FeatureFacts(kind: Int, isScalar: Boolean, isText: Boolean, isSequence: Boolean) {

  def and(other: FeatureFacts, name: String): FeatureFacts = {
    if (kind != 0 && other.kind != 0 && kind != other.kind) {
      throw TFRecordException.cannotInfer(
        s"feature `$name` is ${ListKind.nameOf(kind)} in one record and ${ListKind.nameOf(other.kind)} in another")
    }
    FeatureFacts(
      math.max(kind, other.kind),
      isScalar && other.isScalar,
      isText && other.isText,
      isSequence || other.isSequence)
  }

  def dataType(name: String): DataType = {
    val element = kind match {
      case 1 => if (isText) StringType else BinaryType
      case 2 => FloatType
      case 3 => LongType
      case _ => throw TFRecordException.cannotInfer(s"feature `$name` is empty in all records that were looked at")
    }
    if (isSequence) ArrayType(ArrayType(element)) else if (isScalar) element else ArrayType(element)
  }
}

/** The schema of files: from their side-file or, without one, from a sample of records of all of them. */
private[tfrecord] object SchemaInference {

  def infer(session: SparkSession, options: TFRecordOptions, files: Seq[FileStatus]): Option[StructType] =
    if (options.recordType == TFRecordOptions.ByteArray) Some(ByteArrays.Schema)
    else if (files.isEmpty) None
    else fromSideFile(session, options, files.head).orElse(sampled(session, options, files))

  private def fromSideFile(session: SparkSession, options: TFRecordOptions, file: FileStatus): Option[StructType] =
    if (!options.sideFile) None
    else {
      val fs = file.getPath.getFileSystem(session.sessionState.newHadoopConf())
      SideFile.of(fs, file.getPath).map(_._1.schema)
    }

  private def sampled(session: SparkSession, options: TFRecordOptions, files: Seq[FileStatus]): Option[StructType] = {
    if (options.rowsPerRecord > 1) {
      throw TFRecordException.cannotInfer("packed records do not tell a row's shape, and there is no side-file")
    }
    val paths = files.filter(_.getLen > 0).map(_.getPath.toString)
    if (paths.isEmpty) None
    else {
      val perFile = math.max(1, options.sampleRecords / paths.size)
      val conf = session.sparkContext.broadcast(new SerializableConfiguration(session.sessionState.newHadoopConf()))
      val found = session.sparkContext
        .parallelize(paths, math.min(paths.size, session.sparkContext.defaultParallelism * 4))
        .map(path => ofFile(new Path(path), conf.value.value, options, perFile))
        .fold(Map.empty)(merged)
      if (found.isEmpty) None
      else Some(StructType(found.toSeq.sortBy(_._1).map { case (name, facts) => StructField(name, facts.dataType(name)) }))
    }
  }

  private def ofFile(
      path: Path,
      conf: Configuration,
      options: TFRecordOptions,
      limit: Int): Map[String, FeatureFacts] = {
    val codec = options.codec.getOrElse(Codec.of(path, conf))
    val in: InputStream = codec.decompress(path.getFileSystem(conf).open(path), conf)
    val records = new RecordReader(in, path.toString)
    try {
      var facts = Map.empty[String, FeatureFacts]
      var count = 0
      while (count < limit && records.next()) {
        val end = records.start + records.length
        facts =
          try merged(facts, ofRecord(records.buffer, records.start, end))
          catch { case bad: BadRecord => throw records.failure(bad.getMessage) }
        count += 1
      }
      facts
    } finally records.close()
  }

  private def merged(
      left: Map[String, FeatureFacts],
      right: Map[String, FeatureFacts]): Map[String, FeatureFacts] =
    right.foldLeft(left) { case (all, (name, facts)) =>
      all.updated(name, all.get(name).fold(facts)(_.and(facts, name)))
    }

  private def ofRecord(bytes: Array[Byte], start: Int, end: Int): Map[String, FeatureFacts] = {
    var facts = Map.empty[String, FeatureFacts]
    def add(name: String, one: FeatureFacts): Unit = facts = merged(facts, Map(name -> one))
    ProtoFields.foreach(bytes, start, end, Wire.Delimited1) { (from, to) =>
      entries(bytes, from, to)((name, a, b) => add(name, ofFeature(bytes, a, b)))
    }
    ProtoFields.foreach(bytes, start, end, Wire.Delimited2) { (from, to) =>
      entries(bytes, from, to) { (name, a, b) =>
        add(name, FeatureFacts(0, isScalar = false, isText = true, isSequence = true))
        ProtoFields.foreach(bytes, a, b, Wire.Delimited1)((c, d) => add(name, ofFeature(bytes, c, d)))
      }
    }
    facts
  }

  /** The entries of a map: key, and where the value lies. */
  private def entries(bytes: Array[Byte], from: Int, to: Int)(use: (String, Int, Int) => Unit): Unit =
    ProtoFields.foreach(bytes, from, to, Wire.Delimited1) { (entryFrom, entryTo) =>
      var name = ""
      var value = (entryTo, entryTo)
      ProtoFields.foreach(bytes, entryFrom, entryTo, Wire.Delimited1)((a, b) => name = new String(bytes, a, b - a, UTF_8))
      ProtoFields.foreach(bytes, entryFrom, entryTo, Wire.Delimited2)((a, b) => value = (a, b))
      use(name, value._1, value._2)
    }

  private def ofFeature(bytes: Array[Byte], start: Int, end: Int): FeatureFacts = {
    var facts = FeatureFacts(0, isScalar = false, isText = true, isSequence = false)
    Seq(1, 2, 3).foreach { kind =>
      ProtoFields.foreach(bytes, start, end, Wire.delimitedTag(kind)) { (a, b) =>
        facts = FeatureFacts(kind, count(bytes, a, b, kind) == 1, kind != 1 || isText(bytes, a, b), isSequence = false)
      }
    }
    facts
  }

  private def count(bytes: Array[Byte], start: Int, end: Int, kind: Int): Int = {
    val element = kind match {
      case 1 => (BinaryType, ElementType.Bytes)
      case 2 => (FloatType, ElementType.Float32)
      case _ => (LongType, ElementType.Int64)
    }
    val column = FeatureColumn("", ArrayType(element._1), element._2, isArray = true)
    val cursor = new WireCursor
    cursor.bytes = bytes
    val row = new org.apache.spark.sql.catalyst.expressions.codegen.UnsafeRowWriter(1)
    ListDecoder(column, 0, row).countList(cursor, start, end)
  }

  private def isText(bytes: Array[Byte], start: Int, end: Int): Boolean = {
    var all = true
    ProtoFields.foreach(bytes, start, end, Wire.Delimited1) { (a, b) =>
      val decoder = UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT)
      all &&= (try { decoder.decode(ByteBuffer.wrap(bytes, a, b - a)); true }
      catch { case _: CharacterCodingException => false })
    }
    all
  }
}
