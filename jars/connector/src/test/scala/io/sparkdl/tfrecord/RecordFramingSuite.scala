package io.sparkdl.tfrecord

import java.io.{ByteArrayInputStream, InputStream}
import java.nio.{ByteBuffer, ByteOrder}
import java.util.Arrays

import org.scalatest.funsuite.AnyFunSuite

class RecordFramingSuite extends AnyFunSuite {
  import Examples._

  private val records = Seq("first".getBytes, Array.emptyByteArray, "the third record".getBytes)
  private val file = frame(records: _*)
  private val boundaries = records.scanLeft(0)((at, record) => at + 16 + record.length)

  /** Unmasked as in the TFRecord format: `((masked - delta) << 15) | ((masked - delta) >>> 17)`. */
  private def crc32c(bytes: Array[Byte]): Int =
    Integer.rotateLeft(new MaskedCrc32c().of(bytes, 0, bytes.length) - 0xa282ead8, 15)

  test("CRC-32C gives the examples of RFC 3720, appendix B.4") {
    assert(crc32c(new Array[Byte](32)) == Integer.reverseBytes(0xaa36918a))
    assert(crc32c(Array.fill[Byte](32)(-1)) == Integer.reverseBytes(0x43aba862))
    assert(crc32c(Array.tabulate[Byte](32)(_.toByte)) == Integer.reverseBytes(0x4e79dd46))
    assert(crc32c(Array.tabulate[Byte](32)(i => (31 - i).toByte)) == Integer.reverseBytes(0x5cdb3f11))
  }

  test("records come back, also the empty one, and the frame is as documented") {
    assert(unframe(file) == records.map(_.toSeq))
    assert(file.length == boundaries.last)
    assert(ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).getLong(0) == 5)
  }

  test("an empty file has no records") {
    assert(unframe(Array.emptyByteArray).isEmpty)
  }

  test("records longer than the window, in a stream that gives a few bytes at a time") {
    val random = new scala.util.Random(1)
    val long = Seq(3, 5 << 20, 10, 0, (1 << 20) - 16, 1 << 20, 2).map(randomBytes(random, _))
    val bytes = frame(long: _*)
    val trickle = new ByteArrayInputStream(bytes) {
      override def read(target: Array[Byte], offset: Int, length: Int): Int =
        super.read(target, offset, math.min(length, 1 + random.nextInt(100000)))
    }
    val reader = new RecordReader(trickle, "file")
    for (record <- long) {
      assert(reader.next())
      assert(Arrays.equals(reader.buffer.slice(reader.start, reader.start + reader.length), record))
    }
    assert(!reader.next())
  }

  test("records that are written in pieces are those that are written whole; boundaries are between records only") {
    val random = new scala.util.Random(2)
    val long = Seq(0, 3, 700 << 10, 400 << 10, 3 << 20, 1 << 20, 5, 0).map(randomBytes(random, _))
    val out = new java.io.ByteArrayOutputStream
    val starts = long.scanLeft(0)((at, record) => at + 16 + record.length)
    val writer = new RecordWriter(out, count => assert(out.size == starts(count.toInt)))
    for (record <- long) {
      writer.begin(record.length)
      var at = 0
      while (at < record.length) {
        val count = math.min(record.length - at, random.nextInt(if (random.nextBoolean()) 50000 else 1500000))
        writer.put(record, at, count)
        at += count
      }
      writer.end()
    }
    writer.close()
    assert(writer.numRecords == long.size && writer.numBytes == starts.last)
    assert(Arrays.equals(out.toByteArray, frame(long: _*)))
  }

  test("a record in pieces of another length than was said is refused") {
    val writer = new RecordWriter(new java.io.ByteArrayOutputStream)
    writer.begin(4)
    writer.put(new Array[Byte](3), 0, 3)
    assert(intercept[IllegalArgumentException](writer.end()).getMessage.contains("by 1 bytes"))
  }

  test("each flipped bit of a file is an error that names file, record and offset") {
    for (at <- file.indices; bit <- 0 until 8) {
      val damaged = file.clone()
      damaged(at) = (damaged(at) ^ (1 << bit)).toByte
      val error = intercept[TFRecordException](unframe(damaged))
      val record = boundaries.lastIndexWhere(_ <= at)
      assert(
        error.getMessage.startsWith(
          s"Cannot read TFRecord file file: record $record (counted from 0) at byte ${boundaries(record)}: "
        )
      )
      assert(error.getMessage.contains("CRC-32C"))
    }
  }

  test("a file cut anywhere but between records is an error") {
    for (length <- file.indices) {
      val cut = file.take(length)
      if (boundaries.contains(length)) {
        assert(unframe(cut) == records.take(boundaries.indexOf(length)).map(_.toSeq))
      } else {
        val error = intercept[TFRecordException](unframe(cut))
        val record = boundaries.lastIndexWhere(_ <= length)
        assert(error.getMessage.contains(s"record $record (counted from 0) at byte ${boundaries(record)}: "))
        assert(error.getMessage.contains("truncated"))
      }
    }
  }

  private def header(length: Long): Array[Byte] = {
    val bytes = new Array[Byte](12)
    LittleEndian.putLong(length, bytes, 0)
    LittleEndian.putInt(new MaskedCrc32c().of(bytes, 0, 8), bytes, 8)
    bytes
  }

  for (length <- Seq(1L << 60, -1L, Int.MaxValue.toLong, Long.MinValue)) {
    test(s"a length of ${java.lang.Long.toUnsignedString(length)} bytes with a good checksum is refused at once") {
      val error = intercept[TFRecordException](unframe(file ++ header(length)))
      assert(error.getMessage.contains(s"record 3 (counted from 0) at byte ${file.length}"))
      assert(error.getMessage.contains(s"its length is ${java.lang.Long.toUnsignedString(length)} bytes"))
    }
  }

  test("the longest length with a good checksum allocates no more than the file has") {
    val reader = new RecordReader(new ByteArrayInputStream(header(RecordWriter.MaxRecordBytes.toLong)), "file")
    val error = intercept[TFRecordException](reader.next())
    assert(error.getMessage.contains("truncated"))
    assert(reader.buffer.length == 1 << 20)
  }

  test("closing closes the stream") {
    var closed = false
    val in: InputStream = new ByteArrayInputStream(file) { override def close(): Unit = closed = true }
    new RecordReader(in, "file").close()
    assert(closed)
  }
}
