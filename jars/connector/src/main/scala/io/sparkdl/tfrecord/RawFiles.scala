package io.sparkdl.tfrecord

import org.apache.hadoop.fs.{FileSystem, LocalFileSystem}

/**
 * On local disks Hadoop keeps a checksum of each 512 bytes in a hidden file beside. A record has its own checksums, and
 * the side-file that of the file, so data files go without: they are written and read in large pieces. Side-files do
 * too: a file and its checksums cannot be replaced in one step.
 */
private[tfrecord] object RawFiles {

  // Spark's own local file system is Hive's, which only renames differently.
  private val Plain =
    Set("org.apache.hadoop.fs.LocalFileSystem", "org.apache.hadoop.hive.ql.io.ProxyLocalFileSystem")

  /** The local disks' file system without its checksums; any other one, what somebody derived from it too. */
  def of(fs: FileSystem): FileSystem = fs match {
    case local: LocalFileSystem if Plain(local.getClass.getName) => local.getRawFileSystem
    case other => other
  }
}
