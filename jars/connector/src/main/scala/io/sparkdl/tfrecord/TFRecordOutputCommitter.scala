package io.sparkdl.tfrecord

import scala.collection.mutable

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.{FileSystem, Path}
import org.apache.hadoop.mapreduce.{JobContext, TaskAttemptContext}
import org.apache.hadoop.mapreduce.lib.output.FileOutputCommitter

/** Commits as Hadoop does, then gathers the side-files of the tasks in the table's. */
final class TFRecordOutputCommitter(output: Path, context: TaskAttemptContext)
    extends FileOutputCommitter(output, context) {

  override def setupJob(job: JobContext): Unit = {
    Option(output).foreach(path => RawFiles.makeFolders(path.getFileSystem(job.getConfiguration), getJobAttemptPath(job)))
    super.setupJob(job)
  }

  override def commitJob(job: JobContext): Unit = {
    val table = Option(output).map(TFRecordOutputCommitter.tableOf)
    table.foreach(refuseOther(_, job.getConfiguration))
    super.commitJob(job)
    table.foreach { folder =>
      val fs = folder.getFileSystem(job.getConfiguration)
      if (folder == output) SideFiles.gather(fs, folder)
      else SideFiles.forget(fs, folder, SideFiles.partitionsOf(fs, output)) // those of the tasks move along
    }
  }

  /** Files of one folder are read alike, so what is appended must be written like what is there. */
  private def refuseOther(folder: Path, conf: Configuration): Unit = {
    val fs = folder.getFileSystem(conf)
    val path = new Path(folder, SideFile.Name)
    for (there <- SideFile.read(fs, path); json <- Option(conf.get(TFRecordOutputCommitter.WritingKey))) {
      val writing = SideFile.parse(json, path)
      val isLeft = there.files.keySet.exists(SideFiles.present(fs, folder))
      if (isLeft && (there.schema.catalogString != writing.schema.catalogString || there.options != writing.options)) {
        throw new TFRecordException(
          s"Cannot append to $folder: its files hold ${there.schema.simpleString} written with options " +
            s"${there.options}, these rows are ${writing.schema.simpleString} with options ${writing.options}. " +
            "Write alike, or elsewhere.")
      }
    }
  }
}

private[tfrecord] object TFRecordOutputCommitter {
  /** Key of what is being written, as a side-file without files. */
  final val WritingKey = "io.sparkdl.tfrecord.writing"

  private final val StagingPrefix = ".spark-staging-"

  /**
   * The folder of the table. Where Spark overwrites only the partitions that are written
   * (`partitionOverwriteMode=dynamic`), `output` is a folder in it, from which it moves them after the commit.
   */
  private def tableOf(output: Path): Path =
    if (output.getName.startsWith(StagingPrefix)) output.getParent else output
}

private[tfrecord] object SideFiles {

  /** Adds what the tasks wrote to the table's side-file, drops what is no longer there, and removes theirs. */
  def gather(fs: FileSystem, folder: Path): Unit = {
    val root = fs.makeQualified(folder)
    val paths = mutable.ArrayBuffer.empty[Path]
    val present = mutable.Set.empty[String]
    walk(fs, root, "", paths, present)
    val found = paths.toList.flatMap(path => SideFile.read(fs, path).map((path, _)))
    if (found.nonEmpty) {
      val table = new Path(root, SideFile.Name)
      val own = for ((path, sideFile) <- found; facts <- sideFile.files.values) yield {
        val below = root.toUri.relativize(path.getParent.toUri).getPath.stripSuffix("/")
        val full = if (below.isEmpty) facts.path else s"$below/${facts.path}"
        full -> facts.copy(path = full)
      }
      val kept = SideFile.read(fs, table).fold(Map.empty[String, FileFacts])(_.files.filter(file => present(file._1)))
      SideFile.replace(fs, table, found.last._2.copy(files = kept ++ own))
      found.foreach { case (path, _) => fs.delete(path, false) }
    }
  }

  /** Drops from the table's side-file what it says of `partitions`, which are about to be replaced. */
  def forget(fs: FileSystem, folder: Path, partitions: Set[String]): Unit = {
    val path = new Path(folder, SideFile.Name)
    SideFile.read(fs, path).foreach { table =>
      SideFile.replace(fs, path, table.copy(files = table.files.filterNot(file => partitions(partitionOf(file._1)))))
    }
  }

  /** The partitions of a folder that hold files, by their paths below it. */
  def partitionsOf(fs: FileSystem, folder: Path): Set[String] = present(fs, folder).map(partitionOf)

  private def partitionOf(file: String): String = file.take(math.max(0, file.lastIndexOf('/')))

  /** The files below a table's folder, by their paths below it. */
  def present(fs: FileSystem, folder: Path): Set[String] = {
    val found = mutable.Set.empty[String]
    walk(fs, folder, "", mutable.Buffer.empty, found)
    found.toSet
  }

  private def walk(
      fs: FileSystem,
      folder: Path,
      below: String,
      found: mutable.Buffer[Path],
      present: mutable.Set[String]): Unit =
    fs.listStatus(folder).foreach { status =>
      val name = status.getPath.getName
      if (status.isDirectory) {
        if (name.contains("=")) walk(fs, status.getPath, s"$below$name/", found, present)
      } else if (name.startsWith("_part-") && name.endsWith(".json")) {
        found += status.getPath
      } else {
        present += below + name
      }
    }
}
