package io.sparkdl.tfrecord

import java.io.File
import java.nio.file.{FileAlreadyExistsException => FileExistsException, Files, Path => LocalPath}
import java.nio.file.attribute.PosixFilePermissions

import org.apache.hadoop.fs.{FileAlreadyExistsException, FileSystem, FSDataOutputStream}
import org.apache.hadoop.fs.{LocalFileSystem, Path, RawLocalFileSystem}
import org.apache.hadoop.fs.permission.FsPermission

/**
 * On local disks Hadoop keeps a checksum of each 512 bytes in a hidden file beside. A record has its own checksums, and
 * the side-file that of the file, so data files go without: they are written and read in large pieces. Side-files do
 * too: a file and its checksums cannot be replaced in one step.
 *
 * Without its native library Hadoop also starts a process, `chmod`, for each file and folder that it makes. Here that
 * is left out where they have the right permissions anyway.
 */
private[tfrecord] object RawFiles {

  private final val BufferBytes = 4096 // for a writer of small pieces; ours are large

  // Spark's own local file system is Hive's, which only renames differently.
  private val Plain =
    Set("org.apache.hadoop.fs.LocalFileSystem", "org.apache.hadoop.hive.ql.io.ProxyLocalFileSystem")

  private val hasPermissions = new File("").toPath.getFileSystem.supportedFileAttributeViews.contains("posix")

  /** The local disks' file system without its checksums; any other one, what somebody derived from it too. */
  def of(fs: FileSystem): FileSystem = fs match {
    case local: LocalFileSystem if Plain(local.getClass.getName) => local.getRawFileSystem
    case other => other
  }

  /** Creates a file and the folders above it. */
  def create(fs: FileSystem, path: Path, overwrite: Boolean): FSDataOutputStream = of(fs) match {
    case local: RawLocalFileSystem if hasPermissions =>
      makeFolders(fs, path.getParent)
      createEmpty(local.pathToFile(path).toPath, overwrite)
      permit(local, path, FsPermission.getFileDefault)
      local.append(path, BufferBytes)
    case other => other.create(path, overwrite)
  }

  /** Makes a folder and those above it on local disks; other file systems make them by themselves. */
  def makeFolders(fs: FileSystem, folder: Path): Unit = of(fs) match {
    case local: RawLocalFileSystem if hasPermissions && folder != null && !local.pathToFile(folder).isDirectory =>
      makeFolders(local, folder.getParent)
      if (local.pathToFile(folder).mkdir()) permit(local, folder, FsPermission.getDirDefault)
    case _ => // whoever creates a file in it says what is wrong with it
  }

  private def createEmpty(file: LocalPath, overwrite: Boolean): Unit =
    if (overwrite) Files.newOutputStream(file).close()
    else
      try Files.createFile(file)
      catch { case _: FileExistsException => throw new FileAlreadyExistsException(s"$file is there already") }

  private def permit(local: RawLocalFileSystem, path: Path, default: FsPermission): Unit = {
    val wanted = default.applyUMask(FsPermission.getUMask(local.getConf))
    val found = PosixFilePermissions.toString(Files.getPosixFilePermissions(local.pathToFile(path).toPath))
    if (found != wanted.toString) local.setPermission(path, wanted)
  }
}
