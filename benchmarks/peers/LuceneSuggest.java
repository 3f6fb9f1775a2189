// Lucene's suggesters for benchmarks/index/engines.py: java -cp JARS LuceneSuggest.java KIND ENTRIES STORED
//
// KIND is exact (WFSTCompletionLookup) or 1 or 2 (FuzzySuggester with so many edits, its other settings as they come).
// ENTRIES has a text, a tab and a whole score a line. Builds, stores, loads again, and prints "SECONDS MILLISECONDS" that
// building and loading took. Then answers each line of the input with the nanoseconds that it took and the texts, tabs between.

import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import org.apache.lucene.analysis.core.KeywordAnalyzer;
import org.apache.lucene.search.suggest.*;
import org.apache.lucene.search.suggest.analyzing.*;
import org.apache.lucene.search.suggest.fst.WFSTCompletionLookup;
import org.apache.lucene.store.*;
import org.apache.lucene.util.BytesRef;

public class LuceneSuggest {
    static Lookup make(String kind, Path folder) throws IOException {
        Directory directory = FSDirectory.open(folder);
        if (kind.equals("exact"))
            return new WFSTCompletionLookup(directory, "build", false);
        return new FuzzySuggester(directory, "build", new KeywordAnalyzer(), new KeywordAnalyzer(),
                AnalyzingSuggester.PRESERVE_SEP, 256, -1, true, Integer.parseInt(kind),
                FuzzySuggester.DEFAULT_TRANSPOSITIONS, FuzzySuggester.DEFAULT_NON_FUZZY_PREFIX,
                FuzzySuggester.DEFAULT_MIN_FUZZY_LENGTH, true);
    }

    static InputIterator entries(List<String> lines) {
        return new InputIterator() {
            int at = -1;

            public BytesRef next() {
                return ++at < lines.size() ? new BytesRef(lines.get(at).split("\t")[0]) : null;
            }

            public long weight() {
                return Long.parseLong(lines.get(at).split("\t")[1]);
            }

            public BytesRef payload() {
                return null;
            }

            public boolean hasPayloads() {
                return false;
            }

            public Set<BytesRef> contexts() {
                return null;
            }

            public boolean hasContexts() {
                return false;
            }
        };
    }

    public static void main(String[] arguments) throws IOException {
        List<String> lines = Files.readAllLines(Path.of(arguments[1]), StandardCharsets.UTF_8);
        Path stored = Path.of(arguments[2]);
        long start = System.nanoTime();
        Lookup built = make(arguments[0], stored.getParent());
        built.build(entries(lines));
        try (OutputStream out = new BufferedOutputStream(Files.newOutputStream(stored))) {
            built.store(out);
        }
        double seconds = (System.nanoTime() - start) / 1e9;
        start = System.nanoTime();
        Lookup lookup = make(arguments[0], stored.getParent());
        try (InputStream in = new BufferedInputStream(Files.newInputStream(stored))) {
            lookup.load(in);
        }
        double milliseconds = (System.nanoTime() - start) / 1e6;
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, "UTF-8");
        out.println(seconds + " " + milliseconds);
        out.flush();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String typed; (typed = in.readLine()) != null;) {
            start = System.nanoTime();
            List<Lookup.LookupResult> found = lookup.lookup(typed, false, 10);
            StringBuilder answer = new StringBuilder().append(System.nanoTime() - start);
            for (Lookup.LookupResult one : found)
                answer.append('\t').append(one.key);
            out.println(answer);
            out.flush();
        }
    }
}
