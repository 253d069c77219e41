package io.sparkdl.storage;

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.ipc.RemoteException;

/**
 * Serves Hadoop's file systems over stdin and stdout, for a process that has no Hadoop of its own
 * ({@code spark_dl/storage/bridge.py}). It uses the configuration on its class path and the tokens that
 * HADOOP_TOKEN_FILE_LOCATION names, and ends with its client: at the end of stdin, when what was asked before
 * is done, or after some seconds.
 *
 * <p>Everything is big-endian. A request is {@code int length | int id | byte operation | arguments}, its
 * answer {@code int length | int id | byte status | result}; {@code length} counts what follows it. A text is
 * {@code int length | UTF-8}. Requests are worked on side by side, answers come as they are ready.
 */
public final class FileSystemServer {
  /** Longest frame: the bytes of a block, and what goes with them. */
  static final int MAX_FRAME = (1 << 20) + (1 << 16);

  /** How long requests may take that are worked on when the client ends. */
  private static final long LAST_S = 8;

  private static final byte DONE = 0;
  private static final byte FAILED = 1;

  private final Operations operations;
  private final DataOutputStream out;
  private final ExecutorService workers =
      Executors.newCachedThreadPool(
          task -> {
            Thread thread = new Thread(task, "request");
            thread.setDaemon(true);
            return thread;
          });

  FileSystemServer(Operations operations, DataOutputStream out) {
    this.operations = operations;
    this.out = out;
  }

  public static void main(String[] arguments) throws IOException, InterruptedException {
    InputStream in = new BufferedInputStream(System.in, 1 << 16);
    FileOutputStream pipe = new FileOutputStream(FileDescriptor.out);
    // whatever a library prints must not get between the answers
    System.setOut(System.err);
    DataOutputStream out = new DataOutputStream(new BufferedOutputStream(pipe, 1 << 16));
    FileSystemServer server = new FileSystemServer(new Operations(configuration()), out);
    server.serve(new DataInputStream(in));
    server.finish();
    // without hooks: an unreachable cluster must not keep a process that nobody needs
    Runtime.getRuntime().halt(0);
  }

  private static Configuration configuration() {
    // in YARN's containers: the driver's settings, spark.hadoop.* among them, as Spark hands them on
    Configuration.addDefaultResource("__spark_hadoop_conf__.xml");
    return new Configuration();
  }

  /** Answers requests until the client closes its end. */
  void serve(DataInputStream in) throws IOException {
    while (true) {
      int length;
      try {
        length = in.readInt();
      } catch (EOFException end) {
        return;
      }
      if (length < 5 || length > MAX_FRAME) {
        throw new IOException("a request of " + length + " bytes");
      }
      byte[] request = new byte[length];
      try {
        in.readFully(request);
      } catch (EOFException end) {
        return;
      }
      workers.execute(() -> answer(request));
    }
  }

  /** Does what was asked: a client that is being killed may have written down why. */
  private void finish() throws InterruptedException {
    workers.shutdown();
    workers.awaitTermination(LAST_S, TimeUnit.SECONDS);
  }

  private void answer(byte[] frame) {
    try {
      DataInputStream request = new DataInputStream(new ByteArrayInputStream(frame));
      int id = request.readInt();
      ByteArrayOutputStream body = new ByteArrayOutputStream();
      DataOutputStream result = new DataOutputStream(body);
      byte status = DONE;
      try {
        operations.run(request.readByte(), request, result);
      } catch (Throwable error) { // an OutOfMemoryError too: the client must hear of it
        body.reset();
        status = FAILED;
        describe(error, result);
      }
      result.flush();
      send(id, status, body);
    } catch (IOException error) {
      // the client is gone: the end of stdin is near, and this process's
    }
  }

  private static void describe(Throwable error, DataOutputStream result) throws IOException {
    Throwable cause =
        error instanceof RemoteException ? ((RemoteException) error).unwrapRemoteException() : error;
    Texts.write(result, cause.getClass().getName());
    Texts.write(result, cause.getMessage() == null ? "" : Texts.shortened(cause.getMessage()));
  }

  private void send(int id, byte status, ByteArrayOutputStream body) throws IOException {
    synchronized (out) {
      out.writeInt(4 + 1 + body.size());
      out.writeInt(id);
      out.writeByte(status);
      body.writeTo(out);
      out.flush();
    }
  }
}
