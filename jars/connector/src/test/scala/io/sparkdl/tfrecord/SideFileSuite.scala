package io.sparkdl.tfrecord

import java.nio.file.{Files, Path => LocalPath}
import java.util.concurrent.atomic.AtomicBoolean

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.{FileUtil, Path}
import org.apache.spark.sql.types.StructType
import org.scalatest.BeforeAndAfterAll
import org.scalatest.funsuite.AnyFunSuite

class SideFileSuite extends AnyFunSuite with BeforeAndAfterAll {

  private val folder: LocalPath = Files.createTempDirectory("side-file")
  private val path = new Path(folder.resolve(SideFile.Name).toUri)
  private val fs = path.getFileSystem(new Configuration)

  override def afterAll(): Unit = FileUtil.fullyDelete(folder.toFile)

  private def of(count: Int): SideFile = {
    val files = (1 to count).map(number => FileFacts(s"part-$number", 1, 1, 10, number, Nil))
    SideFile(StructType.fromDDL("id bigint"), Map.empty, files.map(file => file.path -> file).toMap)
  }

  test("who reads while it is replaced sees the old one or the new one") {
    SideFile.replace(fs, path, of(1))
    val isOver = new AtomicBoolean
    val writer = new Thread(() => {
      try for (number <- 1 to 100) SideFile.replace(fs, path, of(1 + number % 2 * 400))
      finally isOver.set(true)
    })
    writer.start()
    try {
      var seen = Set.empty[Int]
      while (!isOver.get) seen += SideFile.read(fs, path).fold(0)(_.files.size)
      assert(seen.subsetOf(Set(1, 401)))
    } finally writer.join()
    assert(SideFile.read(fs, path).map(_.files.size) == Some(1))
    assert(folder.toFile.list().filterNot(_.endsWith(".crc")).toSeq == Seq(SideFile.Name))
  }

  test("one that cannot be written leaves the old one") {
    SideFile.replace(fs, path, of(1))
    val broken = of(1).copy(schema = StructType.fromDDL("id interval year")) // has no place in a record
    intercept[Exception](SideFile.replace(fs, path, broken))
    assert(SideFile.read(fs, path).map(_.files.keySet) == Some(Set("part-1")))
    assert(folder.toFile.list().filterNot(_.endsWith(".crc")).toSeq == Seq(SideFile.Name))
  }
}
