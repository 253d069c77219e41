// The JVM side of spark_dl: `tools/sbt connector/test`, `tools/sbt collectJars`, `tools/sbt packConnector`.
//
// The connector is compiled against the jars of the pyspark that is installed (tools/sbt finds them), so that what we
// compile against and what we run on cannot drift apart. For another line of Spark than that, its jars come from the
// Maven repository, and `packConnector` lays our jar into the wheel beside the other one. Environment:
//
//   SPARK_JARS_DIR           Spark's jars (set by tools/sbt, unless SPARK_DL_SPARK_VERSION is set)
//   SPARK_DL_SPARK_VERSION   version of the Spark to compile against, from the Maven repository
//   SCALA_VERSION            Spark's Scala: 2.13.17 (default; Spark 4) or 2.12.18 (Spark 3.5)
//   SPARK_DL_VERSION         version of the connector jar
//   SPARK_DL_DELTA_ARTIFACT  Delta for that Spark, e.g. delta-spark_4.1_2.13 (default)
//   SPARK_DL_DELTA_VERSION   its version
//   SPARK_DL_JARS_DIR        where collectJars lays the jars (default build/jars)

val sparkVersion = sys.env.get("SPARK_DL_SPARK_VERSION")
val sparkJars = sparkVersion match {
  case Some(_) => None
  case None =>
    Some(file(sys.env.getOrElse("SPARK_JARS_DIR", sys.error("SPARK_JARS_DIR is not set: start sbt as tools/sbt"))))
}
val deltaArtifact = sys.env.getOrElse("SPARK_DL_DELTA_ARTIFACT", "delta-spark_4.1_2.13")
val deltaVersion  = sys.env.getOrElse("SPARK_DL_DELTA_VERSION", "4.1.0")

ThisBuild / organization := "io.sparkdl"
ThisBuild / version      := sys.env.getOrElse("SPARK_DL_VERSION", "0.1.0")
ThisBuild / scalaVersion := sys.env.getOrElse("SCALA_VERSION", "2.13.17")

// Packages that Spark opens on Java 17 (org.apache.spark.launcher.JavaModuleOptions).
val sparkOpens =
  Seq("java.lang", "java.lang.invoke", "java.net", "java.nio", "java.util", "java.util.concurrent", "sun.nio.ch",
    "sun.util.calendar")

lazy val connector = (project in file("jars/connector"))
  .settings(
    name := "spark-dl-connector",
    scalacOptions ++= Seq("-deprecation", "-feature", "-unchecked", "-Xlint", "-Xfatal-warnings"),
    // Spark 3.5 runs on Java 8 too
    Compile / compile / javacOptions ++= Seq("--release", "8", "-Xlint:all,-options,-classfile,-processing,-path", "-Werror"),
    Compile / unmanagedJars ++= Attributed.blankSeq(sparkJars.toSeq.flatMap(folder => (folder ** "*.jar").get)),
    Test / unmanagedJars ++= (Compile / unmanagedJars).value,
    libraryDependencies ++= sparkVersion.toSeq.map(version => "org.apache.spark" %% "spark-sql" % version % Provided),
    libraryDependencies += "org.scalatest" %% "scalatest" % "3.2.19" % Test,
    Test / fork := true,
    Test / testOptions += Tests.Argument(TestFrameworks.ScalaTest, "-oD"), // seconds of each
    Test / javaOptions ++= sparkOpens.map(name => s"--add-opens=java.base/$name=ALL-UNNAMED"),
    Test / javaOptions ++= Seq(
      "-Xmx1g",
      "-Duser.timezone=UTC",
      s"-Dsparkdl.golden=${(ThisBuild / baseDirectory).value / "tests" / "golden"}"
    )
  )

val Delta       = config("delta").hide
val collectJars = taskKey[Seq[File]]("Lay the connector's jar and Delta's jars where spark_dl looks for them")
val packConnector = taskKey[File]("Lay the connector's jar into the Python package, beside that of the other Scala")

lazy val root = (project in file("."))
  .aggregate(connector)
  .configs(Delta)
  .settings(
    name           := "spark-dl",
    publish / skip := true,
    ivyConfigurations += Delta,
    // delta-storage is all that Delta needs beyond what Spark ships.
    libraryDependencies ++= Seq(
      ("io.delta" % deltaArtifact   % deltaVersion % Delta).intransitive(),
      ("io.delta" % "delta-storage" % deltaVersion % Delta).intransitive()
    ),
    packConnector := {
      val jar      = (connector / Compile / packageBin).value
      val packaged = baseDirectory.value / "spark_dl" / "_jars"
      layOnly(Seq(jar), packaged, s"spark-dl-connector_${(connector / scalaBinaryVersion).value}-*.jar")
      packaged / jar.getName
    },
    collectJars := {
      val jar       = packConnector.value
      val delta     = update.value.select(configurationFilter(Delta.name)).filter(_.getName.endsWith(".jar"))
      val collected = file(sys.env.getOrElse("SPARK_DL_JARS_DIR", (baseDirectory.value / "build" / "jars").toString))
      layOnly(jar +: delta, collected, "*.jar")
      streams.value.log.info(s"jars in $collected: ${(jar +: delta).map(_.getName).mkString(", ")}")
      (jar +: delta).map(from => collected / from.getName)
    }
  )

/** Copies `jars` into `folder` and deletes the other files there that match `pattern`. Running JVMs keep what they have. */
def layOnly(jars: Seq[File], folder: File, pattern: String): Unit = {
  IO.createDirectory(folder)
  val wanted = jars.map(_.getName).toSet
  (folder * pattern).get.filterNot(old => wanted(old.getName)).foreach(IO.delete(_))
  jars.foreach { jar =>
    val partial = folder / s".${jar.getName}.partial"
    IO.copyFile(jar, partial, preserveLastModified = true)
    java.nio.file.Files.move(
      partial.toPath, (folder / jar.getName).toPath, java.nio.file.StandardCopyOption.ATOMIC_MOVE)
  }
}
