package io.sparkdl.tfrecord

import java.nio.file.Files

import scala.util.Random

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.{FileSystem, Path}
import org.scalatest.funsuite.AnyFunSuite

/** A file read in splits is the file read in one piece, wherever it is split and whatever its records hold. */
class SplitSuite extends AnyFunSuite {
  private val conf = new Configuration()
  private val fs = FileSystem.getLocal(conf).getRaw

  private def onDisk[T](bytes: Array[Byte])(use: (Path, Long) => T): T = {
    val file = Files.createTempFile("split", ".tfrecord")
    try {
      Files.write(file, bytes)
      use(new Path(file.toString), bytes.length.toLong)
    } finally Files.delete(file)
  }

  private def firstFrom(path: Path, length: Long, from: Long): Long = {
    val in = fs.open(path)
    try new RecordSearch(in, length, path.toString).firstFrom(from)
    finally in.close()
  }

  private def offsets(records: Seq[Array[Byte]]): Seq[Long] = records.scanLeft(0L)((at, record) => at + 16 + record.length)

  private def checkAll(records: Seq[Array[Byte]]): Unit = {
    val file = Examples.frame(records: _*)
    val starts = offsets(records)
    onDisk(file) { (path, length) =>
      for (from <- 0 to file.length) {
        assert(firstFrom(path, length, from.toLong) == starts.find(_ >= from).get, s"from byte $from")
      }
    }
  }

  private val random = new Random(1)

  test("records are found from every byte") {
    checkAll((0 until 20).map(i => Examples.randomBytes(random, i * 7)))
    checkAll(Seq.fill(30)(new Array[Byte](20)))
  }

  test("payloads that hold TFRecords fool nobody, whichever way they are cut") {
    def plain(count: Int) = Seq.fill(count)(Examples.randomBytes(random, 30))
    val inner = Examples.frame(plain(5): _*)
    checkAll(plain(2) ++ Seq(inner) ++ plain(3))
    checkAll(plain(2) :+ inner)
    checkAll(inner +: plain(1))
    checkAll(Seq(inner, Examples.frame(inner, inner), inner.drop(5), inner.dropRight(7)) ++ plain(1))
  }

  test("a damaged file is never searched in silence") {
    val records = Seq.fill(20)(Examples.randomBytes(random, 40))
    val file = Examples.frame(records: _*)
    val starts = offsets(records).toSet
    for (_ <- 1 to 300) {
      val damaged = file.clone()
      val at = random.nextInt(file.length)
      damaged(at) = (damaged(at) ^ (1 << random.nextInt(8))).toByte
      onDisk(damaged) { (path, length) =>
        val from = random.nextInt(file.length).toLong
        try assert(starts(firstFrom(path, length, from)))
        catch { case error: TFRecordException => assert(error.getMessage.contains("damaged")) }
      }
    }
  }

  private def facts(file: Array[Byte], records: Seq[Array[Byte]], firsts: Seq[Int]): FileFacts = {
    def crc(from: Long, until: Long): Int = {
      val sum = new java.util.zip.CRC32C
      sum.update(file, from.toInt, (until - from).toInt)
      sum.getValue.toInt
    }
    val starts = firsts.map(offsets(records)(_))
    val segments = starts.zip(starts.tail :+ file.length.toLong).zip(firsts).map { case ((from, until), record) =>
      Segment(from, record.toLong, crc(from, until))
    }
    FileFacts("file", records.size.toLong, records.size.toLong, file.length.toLong, crc(0, file.length.toLong), segments)
  }

  private def readPart(path: Path, known: Option[FileFacts], from: Long, until: Long): Seq[Seq[Byte]] = {
    val part = FilePart(fs, path, conf, Examples.defaults, known, from, until)
    val reader = part.open()
    try {
      val records = Examples.unframe(reader)
      part.check(reader, records.size.toLong)
      records
    } finally reader.close()
  }

  for (firsts <- Seq(Nil, Seq(0), Seq(0, 4, 5, 9))) {
    test(s"two parts are the whole file, cut at any byte, ${firsts.size} segments known") {
      val records = (0 until 12).map(i => Examples.randomBytes(random, i * 5 % 23))
      val file = Examples.frame(records: _*)
      val known = if (firsts.isEmpty) None else Some(facts(file, records, firsts))
      onDisk(file) { (path, length) =>
        for (cut <- 0L to length) {
          val both = readPart(path, known, 0, cut) ++ readPart(path, known, cut, length)
          assert(both == records.map(_.toSeq), s"cut at byte $cut")
        }
      }
    }
  }
}
