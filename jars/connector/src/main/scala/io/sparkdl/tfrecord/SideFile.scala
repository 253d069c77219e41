package io.sparkdl.tfrecord

import java.io.FileNotFoundException
import java.nio.charset.StandardCharsets.UTF_8
import java.util.UUID

import com.fasterxml.jackson.databind.{JsonNode, ObjectMapper}
import com.fasterxml.jackson.databind.node.ObjectNode
import org.apache.hadoop.fs.{FileContext, FileSystem, Options, Path, RawLocalFileSystem}
import org.apache.spark.sql.types.{DataType, StructType}

/**
 * What one data file holds.
 *
 * @param path below the table's folder
 * @param segments empty for a compressed file
 */
private[tfrecord] final case class FileFacts(
    path: String,
    rows: Long,
    records: Long,
    bytes: Long,
    crc: Int,
    segments: Seq[Segment])

/**
 * `_tfrecord_schema.json` in a table's folder: what the format itself cannot tell. That is the rows' schema, how they
 * were turned into records, and of each file its rows, bytes and checksums.
 *
 * A task writes such a file for each data file, beside it (`_<file>.json`); the commit of the job gathers them in one.
 * Where a foreign committer does not, readers use those of the tasks.
 *
 * @param schema without partition columns
 * @param options those that readers need
 */
private[tfrecord] final case class SideFile(
    schema: StructType,
    options: Map[String, String],
    files: Map[String, FileFacts]) {

  def toJson: String = {
    val root = SideFile.mapper.createObjectNode()
    root.put("version", SideFile.Version).put("format", "tfrecord")
    root.set[JsonNode]("schema", SideFile.mapper.readTree(schema.json))
    val settings = root.putObject("options")
    options.toSeq.sorted.foreach { case (name, value) => settings.put(name, value) }
    val features = root.putArray("features")
    if (options.getOrElse(TFRecordOptions.RecordType, TFRecordOptions.Example) != TFRecordOptions.ByteArray) {
      val layout = RecordLayout.forWrite(schema, new TFRecordOptions(options))
      layout.columns.foreach(column => SideFile.describe(column, features.addObject(), new TFRecordOptions(options)))
    }
    val list = root.putArray("files")
    files.values.toSeq.sortBy(_.path).foreach { file =>
      val node = list.addObject()
      node.put("path", file.path).put("rows", file.rows).put("records", file.records).put("bytes", file.bytes)
      node.put("crc32c", f"${file.crc}%08x")
      val segments = node.putArray("segments")
      file.segments.foreach { segment =>
        segments.addArray().add(segment.offset).add(segment.record).add(f"${segment.crc}%08x")
      }
    }
    SideFile.mapper.writerWithDefaultPrettyPrinter().writeValueAsString(root)
  }
}

private[tfrecord] object SideFile {
  val Name = "_tfrecord_schema.json"
  private final val Version = 1
  private val Renaming = Set("hdfs", "viewfs")
  private val mapper = new ObjectMapper

  /** The side-file of one data file. */
  def besides(file: Path): Path = new Path(file.getParent, s"_${file.getName}.json")

  def parse(json: String, path: Path): SideFile =
    try {
      val root = mapper.readTree(json)
      require(root.path("version").asInt == Version, s"version ${root.path("version").asText("?")}")
      val options = Json.fields(root.path("options")).map { case (name, value) => name -> value.asText }.toMap
      val files = Json.elements(root.path("files")).map { node =>
        val segments = Json.elements(node.path("segments")).map { segment =>
          Segment(segment.get(0).asLong, segment.get(1).asLong, hex(segment.get(2)))
        }
        val name = node.get("path").asText
        name -> FileFacts(name, node.get("rows").asLong, node.get("records").asLong, node.get("bytes").asLong,
          hex(node.get("crc32c")), segments)
      }.toMap
      SideFile(DataType.fromJson(root.get("schema").toString).asInstanceOf[StructType], options, files)
    } catch {
      case error: Exception =>
        throw new TFRecordException(
          s"$path is not a side-file of this version ($error). Remove it, or ignore it with " +
            "option(\"sideFile\", \"false\").", error)
    }

  def read(fs: FileSystem, path: Path): Option[SideFile] =
    try {
      val in = RawFiles.of(fs).open(path)
      try Some(parse(new String(in.readAllBytes(), UTF_8), path))
      finally in.close()
    } catch { case _: FileNotFoundException => None }

  def write(fs: FileSystem, path: Path, sideFile: SideFile): Unit = {
    val out = RawFiles.create(fs, path, overwrite = true)
    try out.write(sideFile.toJson.getBytes(UTF_8))
    finally out.close()
  }

  /**
   * Replaces a side-file. Readers see the old one or the new one, also where the writer is killed: file systems that
   * rename do so, an object store shows a file once it is whole.
   */
  def replace(fs: FileSystem, path: Path, sideFile: SideFile): Unit = {
    def renamed(rename: Path => Unit): Unit = {
      val part = new Path(path.getParent, s".${path.getName}.${UUID.randomUUID}")
      try {
        write(fs, part, sideFile)
        rename(part)
      } finally fs.delete(part, false)
    }
    RawFiles.of(fs) match {
      case local: RawLocalFileSystem => renamed(local.rename(_, path))
      case remote if Renaming(remote.getUri.getScheme) =>
        renamed(FileContext.getFileContext(remote.getUri, remote.getConf).rename(_, path, Options.Rename.OVERWRITE))
      case _ => write(fs, path, sideFile)
    }
  }

  /** The side-file that speaks of `file`, and what it says: in a folder above it, or beside it. */
  def of(fs: FileSystem, file: Path): Option[(SideFile, Option[FileFacts])] = {
    val inFolders = foldersOf(file).iterator.flatMap { case (folder, below) =>
      cached(fs, new Path(folder, Name)).map(found => (found, found.files.get(below)))
    }
    val gathered = if (inFolders.hasNext) Some(inFolders.next()) else None
    gathered match {
      case Some((_, Some(_))) => gathered
      case _ =>
        val own = read(fs, besides(file)).map(found => (found, found.files.get(file.getName)))
        own.orElse(gathered)
    }
  }

  /** The folder of a file and, above partition folders, the table's; with the file's path below each. */
  private def foldersOf(file: Path): Seq[(Path, String)] = {
    def above(folder: Path, below: String): Seq[(Path, String)] = {
      val upper =
        if (folder.getParent != null && folder.getName.contains("=")) above(folder.getParent, s"${folder.getName}/$below")
        else Nil
      (folder, below) +: upper
    }
    above(file.getParent, file.getName)
  }

  // A task reads many files of one table; a side-file that was written anew has another time.
  private var last: Option[(Path, Long, Long, SideFile)] = None

  private def cached(fs: FileSystem, path: Path): Option[SideFile] =
    try {
      val status = fs.getFileStatus(path)
      val found = synchronized(last).collect {
        case (known, time, length, sideFile)
            if known == status.getPath && time == status.getModificationTime && length == status.getLen => sideFile
      }
      found.orElse {
        val sideFile = read(fs, path)
        sideFile.foreach { one =>
          synchronized { last = Some((status.getPath, status.getModificationTime, status.getLen, one)) }
        }
        sideFile
      }
    } catch { case _: FileNotFoundException => None }

  private def describe(column: FeatureColumn, node: ObjectNode, options: TFRecordOptions): Unit = {
    node.put("name", column.name).put("list", column.element.list.name).put("type", column.elementType.simpleString)
    node.put("array", column.isArray)
    if (column.isSequence) node.put("sequence", true)
    options.shapes.get(column.name).foreach { shape =>
      val dimensions = node.putArray("shape")
      shape.foreach(size => dimensions.add(size))
    }
    if (options.rowsPerRecord > 1) column.rowSplits.foreach(splits => node.put("rowSplits", splits.name))
  }

  private def hex(node: JsonNode): Int = Integer.parseUnsignedInt(node.asText, 16)
}

/** What a JSON array or object holds. */
private[tfrecord] object Json {
  def elements(array: JsonNode): List[JsonNode] = List.tabulate(array.size)(array.get(_))

  def fields(node: JsonNode): List[(String, JsonNode)] = {
    val names = List.newBuilder[String]
    node.fieldNames().forEachRemaining(name => names += name)
    names.result().map(name => name -> node.get(name))
  }
}
