package io.sparkdl.tfrecord

import java.nio.file.{Files, Path => LocalPath}
import java.nio.file.attribute.PosixFilePermissions

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.{FileAlreadyExistsException, FileSystem, FileUtil, Path}
import org.scalatest.BeforeAndAfterEach
import org.scalatest.funsuite.AnyFunSuite

class RawFilesSuite extends AnyFunSuite with BeforeAndAfterEach {

  private var folder: LocalPath = _

  override def beforeEach(): Unit = folder = Files.createTempDirectory("raw-files")
  override def afterEach(): Unit = FileUtil.fullyDelete(folder.toFile)

  private def local(umask: String): FileSystem = {
    val conf = new Configuration
    conf.set("fs.permissions.umask-mode", umask)
    FileSystem.newInstanceLocal(conf)
  }

  private def write(fs: FileSystem, file: LocalPath, content: String, overwrite: Boolean): Unit = {
    val out = RawFiles.create(fs, new Path(file.toUri), overwrite)
    try out.write(content.getBytes)
    finally out.close()
  }

  private def permissions(path: LocalPath): String = PosixFilePermissions.toString(Files.getPosixFilePermissions(path))

  for ((umask, ofFile, ofFolder) <- Seq(("022", "rw-r--r--", "rwxr-xr-x"), ("077", "rw-------", "rwx------"))) {
    test(s"files and folders have the permissions that Hadoop gives them with umask $umask") {
      val fs = local(umask)
      val file = folder.resolve("a/b/file")
      write(fs, file, "ours", overwrite = false)
      fs.create(new Path(folder.resolve("c/file").toUri), false).close()
      assert(permissions(file) == ofFile && permissions(folder.resolve("c/file")) == ofFile)
      for (made <- Seq("a", "a/b", "c")) assert(permissions(folder.resolve(made)) == ofFolder)
    }
  }

  test("what is there is overwritten, or left") {
    val fs = local("022")
    val file = folder.resolve("file")
    write(fs, file, "a long content", overwrite = false)
    intercept[FileAlreadyExistsException](write(fs, file, "other", overwrite = false))
    assert(Files.readString(file) == "a long content")
    write(fs, file, "short", overwrite = true)
    assert(Files.readString(file) == "short")
  }
}
