package io.sparkdl.storage;

import java.io.Closeable;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.File;
import java.io.IOException;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Options.Rename;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.UnsupportedFileSystemException;
import org.apache.hadoop.security.Credentials;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.util.VersionInfo;

/** What {@link FileSystemServer} can be asked for; the letters are those of spark_dl/storage/bridge.py. */
final class Operations {
  private final Configuration conf;
  private final Map<Integer, Closeable> handles = new ConcurrentHashMap<>();
  private final AtomicInteger lastHandle = new AtomicInteger();

  Operations(Configuration conf) {
    this.conf = conf;
  }

  /** Reads the arguments of an operation, does it, and writes its result. */
  void run(byte operation, DataInputStream in, DataOutputStream out) throws IOException {
    switch (operation) {
      case 'V':
        Texts.write(out, VersionInfo.getVersion());
        break;
      case 'S':
        writeStatus(out, status(path(in)));
        break;
      case 'L':
        list(path(in), out);
        break;
      case 'O':
        open(path(in), out);
        break;
      case 'R':
        read(in.readInt(), in.readLong(), in.readInt(), out);
        break;
      case 'C':
        create(path(in), out);
        break;
      case 'W':
        write(in.readInt(), in);
        break;
      case 'X':
        close(in.readInt());
        break;
      case 'P':
        put(path(in), path(in), in);
        break;
      case 'M':
        rename(path(in), path(in), in.readBoolean());
        break;
      case 'D':
        delete(path(in));
        break;
      case 'K':
        makeFolders(path(in));
        break;
      case 'T':
        addTokens(Texts.read(in));
        break;
      default:
        throw new IOException("unknown operation " + operation);
    }
  }

  private static Path path(DataInputStream in) throws IOException {
    return new Path(Texts.read(in));
  }

  private FileSystem fileSystem(Path path) throws IOException {
    return path.getFileSystem(conf);
  }

  private FileStatus status(Path path) throws IOException {
    return fileSystem(path).getFileStatus(path);
  }

  private static void writeStatus(DataOutputStream out, FileStatus status) throws IOException {
    out.writeBoolean(status.isDirectory());
    out.writeLong(status.getLen());
    out.writeLong(status.getModificationTime());
  }

  private void list(Path path, DataOutputStream out) throws IOException {
    FileStatus[] found = fileSystem(path).listStatus(path);
    out.writeInt(found.length);
    for (FileStatus status : found) {
      Texts.write(out, status.getPath().getName());
      writeStatus(out, status);
    }
  }

  private void open(Path path, DataOutputStream out) throws IOException {
    long length = status(path).getLen();
    out.writeInt(keep(fileSystem(path).open(path)));
    out.writeLong(length);
  }

  private void create(Path path, DataOutputStream out) throws IOException {
    out.writeInt(keep(fileSystem(path).create(path, true)));
  }

  private int keep(Closeable stream) {
    int handle = lastHandle.incrementAndGet();
    handles.put(handle, stream);
    return handle;
  }

  private <T extends Closeable> T handle(int number, Class<T> kind) throws IOException {
    Closeable found = handles.get(number);
    if (!kind.isInstance(found)) {
      throw new IOException("no open file has the number " + number);
    }
    return kind.cast(found);
  }

  private void read(int number, long offset, int length, DataOutputStream out) throws IOException {
    if (length < 0 || length > FileSystemServer.MAX_FRAME) {
      throw new IOException("asked for " + length + " bytes at once");
    }
    byte[] block = new byte[length];
    FSDataInputStream stream = handle(number, FSDataInputStream.class);
    int have = 0;
    synchronized (stream) {
      // one stream read on from where it is: HDFS connects anew for each positioned read
      if (stream.getPos() != offset) {
        stream.seek(offset);
      }
      int got;
      while (have < length && (got = stream.read(block, have, length - have)) >= 0) {
        have += got;
      }
    }
    if (have < length) {
      throw new EOFException("the file ends after " + (offset + have) + " bytes, asked for " + (offset + length));
    }
    out.write(block);
  }

  private static byte[] rest(DataInputStream in) throws IOException {
    byte[] block = new byte[in.available()];
    in.readFully(block);
    return block;
  }

  /** Writes a whole file, by another name where a rename makes it appear at once. */
  private void put(Path written, Path path, DataInputStream in) throws IOException {
    byte[] content = rest(in);
    boolean isRenamed = !written.equals(path);
    try {
      try (FSDataOutputStream stream = fileSystem(written).create(written, true)) {
        stream.write(content);
      }
      if (isRenamed) {
        rename(written, path, true);
      }
    } catch (IOException error) {
      if (isRenamed) {
        discard(written, error);
      }
      throw error;
    }
  }

  private void discard(Path path, IOException reason) {
    try {
      delete(path);
    } catch (IOException further) {
      reason.addSuppressed(further);
    }
  }

  private void write(int number, DataInputStream in) throws IOException {
    byte[] block = rest(in);
    FSDataOutputStream stream = handle(number, FSDataOutputStream.class);
    synchronized (stream) {
      stream.write(block);
    }
  }

  private void close(int number) throws IOException {
    Closeable stream = handles.remove(number);
    if (stream != null) {
      stream.close();
    }
  }

  private void rename(Path from, Path to, boolean overwrite) throws IOException {
    FileSystem fs = fileSystem(from);
    Path source = fs.makeQualified(from);
    Path target = fs.makeQualified(to);
    try {
      FileContext.getFileContext(fs.getUri(), conf)
          .rename(source, target, overwrite ? Rename.OVERWRITE : Rename.NONE);
    } catch (UnsupportedFileSystemException withoutContext) {
      if (overwrite) {
        fs.delete(target, false);
      }
      if (!fs.rename(source, target)) {
        throw new IOException("the file system refused to rename " + source + " to " + target);
      }
    }
  }

  private void delete(Path path) throws IOException {
    fileSystem(path).delete(path, true);
  }

  private void makeFolders(Path path) throws IOException {
    if (!fileSystem(path).mkdirs(path)) {
      throw new IOException("the file system made no folder " + path);
    }
  }

  /** Takes the tokens of a file, in the place of older ones for the same services. */
  private void addTokens(String file) throws IOException {
    Credentials tokens = Credentials.readTokenStorageFile(new File(file), conf);
    UserGroupInformation.getCurrentUser().addCredentials(tokens);
  }
}
