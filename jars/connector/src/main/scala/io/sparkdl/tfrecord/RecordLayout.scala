package io.sparkdl.tfrecord

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.types._

/**
 * How a table's columns lie in records: the features, and the way from a row to the flat row that holds exactly them
 * and back. Columns that are features as they are take no detour.
 *
 * @param columns the features, in order
 * @param toFlat from a column of the table to its features; empty where a row is flat already
 * @param fromFlat from the features to the columns of the table; likewise
 */
private[tfrecord] final class RecordLayout(
    val columns: IndexedSeq[FeatureColumn],
    toFlat: Seq[Expression],
    fromFlat: Seq[Expression]) {

  def flatten: InternalRow => InternalRow =
    if (toFlat.isEmpty) identity
    else {
      val projection = UnsafeProjection.create(toFlat)
      row => projection(row)
    }

  /** The table's rows; they are reused. */
  def assemble(rows: Iterator[InternalRow]): Iterator[InternalRow] =
    if (fromFlat.isEmpty) rows
    else {
      val projection = UnsafeProjection.create(fromFlat)
      rows.map(projection)
    }
}

/** Turns a schema into a layout, or refuses it by the first column that a TFRecord cannot hold. */
private[tfrecord] object RecordLayout {

  def forWrite(schema: StructType, options: TFRecordOptions): RecordLayout = new Planner(options, "write").plan(schema)

  def forRead(schema: StructType, options: TFRecordOptions): RecordLayout = new Planner(options, "read").plan(schema)

  /** A feature, and how its column is turned into it and back. */
  private final case class Leaf(column: FeatureColumn, to: Expression => Expression, from: Expression => Expression)

  private final class Planner(options: TFRecordOptions, verb: String) {

    def plan(schema: StructType): RecordLayout = {
      val leaves = schema.fields.toIndexedSeq.map(field => leavesOf(field.name, field.dataType))
      val columns = leaves.flatten.map(_.column)
      val isFlat = leaves.zip(schema.fields).forall {
        case (Seq(leaf), field) => leaf.column.dataType == field.dataType
        case _ => false
      }
      columns.groupBy(_.name).collectFirst { case (name, same) if same.size > 1 => name }.foreach { name =>
        throw new TFRecordException(s"Cannot $verb as TFRecord: two columns become the feature `$name`. Rename one.")
      }
      if (isFlat) new RecordLayout(columns, Nil, Nil)
      else {
        val toFlat = schema.fields.toSeq.zipWithIndex.flatMap { case (field, i) =>
          flat(field.name, field.dataType, BoundReference(i, field.dataType, nullable = true))
        }
        val sources = columns.zipWithIndex.iterator.map { case (column, i) =>
          BoundReference(i, column.dataType, nullable = true)
        }
        new RecordLayout(columns, toFlat, schema.fields.toSeq.map(field => built(field.name, field.dataType, sources)))
      }
    }

    private def leavesOf(name: String, dataType: DataType): Seq[Leaf] = dataType match {
      case StructType(fields) if fields.nonEmpty =>
        fields.toSeq.flatMap(field => leavesOf(s"$name.${field.name}", field.dataType))
      case _ => Seq(leaf(name, dataType))
    }

    private def flat(name: String, dataType: DataType, source: Expression): Seq[Expression] = dataType match {
      case StructType(fields) if fields.nonEmpty =>
        fields.toSeq.zipWithIndex.flatMap { case (field, i) =>
          flat(s"$name.${field.name}", field.dataType, GetStructField(source, i))
        }
      case _ => Seq(leaf(name, dataType).to(source))
    }

    private def built(name: String, dataType: DataType, sources: Iterator[Expression]): Expression = dataType match {
      case StructType(fields) if fields.nonEmpty =>
        val values = fields.toSeq.map(field => built(s"$name.${field.name}", field.dataType, sources))
        val struct = CreateNamedStruct(fields.toSeq.zip(values).flatMap { case (field, value) =>
          Seq(Literal(field.name), value)
        })
        // a struct of which nothing was written was null
        If(values.map(IsNull(_): Expression).reduce(And(_, _)), Literal(null, struct.dataType), struct)
      case _ => leaf(name, dataType).from(sources.next())
    }

    private def leaf(name: String, dataType: DataType): Leaf = {
      val shape = options.shapes.get(name)
      dataType match {
        case ArrayType(ArrayType(inner, _), _)
            if options.recordType == TFRecordOptions.SequenceExample && ElementType.of(inner).isDefined =>
          same(FeatureColumn(name, dataType, ElementType.of(inner).get, isArray = true, isSequence = true))
        case ArrayType(_: ArrayType, _) => nested(name, dataType, shape)
        case ArrayType(element, _) => array(name, dataType, element, shape)
        case DoubleType | _: DecimalType if mayLose(dataType) =>
          Leaf(column(name, FloatType, ElementType.Float32), Cast(_, FloatType), Cast(_, dataType))
        case vector if VectorFeatures.isVector(vector) && mayLose(vector) =>
          val floats = ArrayType(FloatType, containsNull = false)
          Leaf(
            column(name, floats, ElementType.Float32, isArray = true, shape),
            VectorToFloats(_),
            FloatsToVector(_, vector))
        case scalar => same(column(name, scalar, ElementType.of(scalar).getOrElse(throw refused(name, scalar))))
      }
    }

    private def array(name: String, dataType: DataType, element: DataType, shape: Option[Seq[Int]]): Leaf =
      element match {
        case DoubleType | _: DecimalType if mayLose(element) =>
          val floats = ArrayType(FloatType)
          Leaf(
            column(name, floats, ElementType.Float32, isArray = true, shape),
            Cast(_, floats),
            Cast(_, ArrayType(element)))
        case _ =>
          val kind = ElementType.of(element).getOrElse(throw refused(name, dataType))
          same(column(name, dataType, kind, isArray = true, shape))
      }

    /** Arrays of arrays lie in a feature in row-major order. */
    private def nested(name: String, dataType: DataType, shape: Option[Seq[Int]]): Leaf = {
      val dimensions = shape.getOrElse(throw TFRecordException.shapeNeeded(verb, name, dataType))
      if (dimensions.size != depth(dataType)) {
        throw TFRecordException.wrongShape(verb, name, dataType, dimensions)
      }
      val flat = array(name, ArrayType(bottom(dataType)), bottom(dataType), shape)
      Leaf(
        flat.column,
        source => flat.to(FlattenArray(source, dimensions, name)),
        source => NestArray(flat.from(source), dimensions))
    }

    private def same(column: FeatureColumn): Leaf = Leaf(column, identity, identity)

    private def column(
        name: String,
        dataType: DataType,
        element: ElementType,
        isArray: Boolean = false,
        shape: Option[Seq[Int]] = None): FeatureColumn =
      FeatureColumn(name, dataType, element, isArray, shape.map(_.product))

    /** A float is a double; the way back is not exact. */
    private def mayLose(dataType: DataType): Boolean =
      options.allowLossy || (verb == "read" && dataType == DoubleType)

    private def refused(name: String, dataType: DataType): TFRecordException =
      TFRecordException.unsupportedType(verb, name, dataType, TypeAdvice(dataType))
  }

  private def depth(dataType: DataType): Int = dataType match {
    case ArrayType(element, _) => 1 + depth(element)
    case _ => 0
  }

  private def bottom(dataType: DataType): DataType = dataType match {
    case ArrayType(element, _) => bottom(element)
    case other => other
  }
}

/** What to do about a type that is refused. */
private[tfrecord] object TypeAdvice {
  def apply(dataType: DataType): String = dataType match {
    case DoubleType | ArrayType(DoubleType, _) =>
      "it has no double; accept 32-bit floats with option(\"allowLossy\", \"true\"), or cast to float " +
        "(spark_dl.prepare does this)"
    case _: DecimalType | ArrayType(_: DecimalType, _) =>
      "it has no decimal; accept 32-bit floats with option(\"allowLossy\", \"true\"), cast to bigint, or cast to " +
        "string to keep every digit"
    case vector if VectorFeatures.isVector(vector) =>
      "its numbers are doubles; accept 32-bit floats with option(\"allowLossy\", \"true\"), or use " +
        "vector_to_array(column, 'float32')"
    case _: MapType =>
      "it has no map; select the map's values, or its keys and its values, as columns"
    case ArrayType(_: StructType, _) =>
      "it has no array of structs; select each field of the structs as an array"
    case _: UserDefinedType[_] =>
      "it has no user-defined types; select what they hold as columns"
    case _ =>
      "it holds boolean, tinyint, smallint, int, bigint, date, timestamp, float, string, binary, arrays and structs " +
        "of these; cast to one of them"
  }
}
