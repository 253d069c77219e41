package io.sparkdl.tfrecord

import java.nio.charset.StandardCharsets.UTF_8

import org.apache.spark.sql.catalyst.expressions.SpecializedGetters
import org.apache.spark.sql.catalyst.expressions.codegen.UnsafeWriter
import org.apache.spark.sql.types._

/**
 * The three lists that a `tf.train.Feature` can be, with their field numbers
 * (tensorflow/core/example/feature.proto).
 */
private[tfrecord] sealed abstract class ListKind(val name: String, val fieldNumber: Int) extends Serializable

private[tfrecord] object ListKind {
  case object BytesList extends ListKind("BytesList", 1)
  case object FloatList extends ListKind("FloatList", 2)
  case object Int64List extends ListKind("Int64List", 3)

  def nameOf(fieldNumber: Int): String =
    Seq(BytesList, FloatList, Int64List).find(_.fieldNumber == fieldNumber).fold("no list")(_.name)
}

/**
 * A Catalyst type that a list holds without loss.
 *
 * @param numBytes width of a value in Spark's unsafe format; 8 for what has no fixed width
 */
private[tfrecord] sealed abstract class ElementType(val list: ListKind, val numBytes: Int) extends Serializable

private[tfrecord] object ElementType {

  /** Strings and binary: the bytes as they are. */
  case object Bytes extends ElementType(ListKind.BytesList, 8)

  /** float, bit for bit. */
  case object Float32 extends ElementType(ListKind.FloatList, 4)

  /** A whole number of `minimum` to `maximum`, held as int64. */
  sealed abstract class Integral(numBytes: Int, val minimum: Long, val maximum: Long)
      extends ElementType(ListKind.Int64List, numBytes) {

    def get(values: SpecializedGetters, ordinal: Int): Long

    /** @param value between `minimum` and `maximum` */
    def put(value: Long, target: UnsafeWriter, ordinal: Int): Unit
  }

  case object Bool extends Integral(1, 0, 1) {
    override def get(values: SpecializedGetters, ordinal: Int): Long = if (values.getBoolean(ordinal)) 1L else 0L
    override def put(value: Long, target: UnsafeWriter, ordinal: Int): Unit = target.write(ordinal, value == 1)
  }

  case object Int8 extends Integral(1, Byte.MinValue, Byte.MaxValue) {
    override def get(values: SpecializedGetters, ordinal: Int): Long = values.getByte(ordinal).toLong
    override def put(value: Long, target: UnsafeWriter, ordinal: Int): Unit = target.write(ordinal, value.toByte)
  }

  case object Int16 extends Integral(2, Short.MinValue, Short.MaxValue) {
    override def get(values: SpecializedGetters, ordinal: Int): Long = values.getShort(ordinal).toLong
    override def put(value: Long, target: UnsafeWriter, ordinal: Int): Unit = target.write(ordinal, value.toShort)
  }

  case object Int32 extends Integral(4, Int.MinValue, Int.MaxValue) {
    override def get(values: SpecializedGetters, ordinal: Int): Long = values.getInt(ordinal).toLong
    override def put(value: Long, target: UnsafeWriter, ordinal: Int): Unit = target.write(ordinal, value.toInt)
  }

  case object Int64 extends Integral(8, Long.MinValue, Long.MaxValue) {
    override def get(values: SpecializedGetters, ordinal: Int): Long = values.getLong(ordinal)
    override def put(value: Long, target: UnsafeWriter, ordinal: Int): Unit = target.write(ordinal, value)
  }

  /** The type table: every type that the connector knows. Dates are days, timestamps microseconds since 1970. */
  def of(dataType: DataType): Option[ElementType] = dataType match {
    case BooleanType => Some(Bool)
    case ByteType => Some(Int8)
    case ShortType => Some(Int16)
    case IntegerType | DateType => Some(Int32)
    case LongType | TimestampType | TimestampNTZType => Some(Int64)
    case FloatType => Some(Float32)
    case _: StringType | BinaryType => Some(Bytes)
    case _ => None
  }
}

/**
 * A column of the flat table that is a feature of the record, under its name.
 *
 * @param length of every row's array, where it is fixed
 * @param isSequence whether it is a FeatureList of a `tf.train.SequenceExample`: an array of arrays
 */
private[tfrecord] final case class FeatureColumn(
    name: String,
    dataType: DataType,
    element: ElementType,
    isArray: Boolean,
    length: Option[Int] = None,
    isSequence: Boolean = false) {

  /** The feature's name as bytes. */
  def key: Array[Byte] = name.getBytes(UTF_8)

  /** The type of a value: of the column itself, or of its array's elements. */
  def elementType: DataType = dataType match {
    case ArrayType(elementType, _) => elementType
    case scalar => scalar
  }

  /** In a pack: the feature that says where the arrays of each row begin and end, if their length varies. */
  def rowSplits: Option[FeatureColumn] =
    if (!isArray || length.isDefined) None
    else {
      val splits = ArrayType(LongType, containsNull = false)
      Some(FeatureColumn(name + FeatureColumn.RowSplits, splits, ElementType.Int64, isArray = true))
    }

  /** In a SequenceExample: one Feature of the list as a column of its own. */
  def step: FeatureColumn = copy(dataType = elementType, isSequence = false)

  override def toString: String = s"column `$name` (${dataType.simpleString})"
}

private[tfrecord] object FeatureColumn {
  final val RowSplits = "/row_splits"
}
