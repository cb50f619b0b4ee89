package org.dualform.lab.data;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.icl.TokenTask;

/**
 * A few-shot corpus with a known answer. A document is a row of examples {@code w w w w label sep}. The words of an example come from one
 * of a few clusters, some of them from any; the label is the example's cluster mapped through a permutation that is hidden in the document:
 * the identity with some probability, else any, uniformly. So a label can be known only from the examples before, and the best that can be
 * done is computed by {@link #posterior}.
 *
 * <p>Tokens are the words, cluster by cluster, then the labels, then the separator, which also begins a sequence. Documents are addressed
 * by seed and number.
 *
 * <p>Threading: immutable.
 *
 * @param clusters of words, and labels; 2 to 6
 * @param wordsPerCluster 1 to 1048576
 * @param wordsPerExample 1 to 1048576
 * @param noise probability that a word comes from any cluster, uniformly over all words
 * @param canonical probability of the identity on top of its share among all permutations
 */
public record LabelMapping(int clusters, int wordsPerCluster, int wordsPerExample, double noise, double canonical) {
    private static final int MOST_CLUSTERS = 6;
    /** By number of clusters; each permutation says the label of every cluster. */
    private static final List<List<int[]>> PERMUTATIONS = IntStream.rangeClosed(0, MOST_CLUSTERS).mapToObj(LabelMapping::all).toList();

    /**
     * Words and their label.
     *
     * <p>Threading: immutable, if nobody changes the array.
     *
     * @param words their tokens
     * @param cluster they were drawn from
     * @param label its image under the document's permutation, from 0
     */
    public record Example(int[] words, int cluster, int label) {}

    /**
     * Examples that share a permutation.
     *
     * <p>Threading: immutable, if nobody changes the array.
     *
     * @param permutation the label of each cluster
     * @param examples in order
     */
    public record Document(int[] permutation, List<Example> examples) {
        /**
         * Whether every cluster has its own number as label.
         *
         * @return whether the permutation is the identity
         */
        public boolean isCanonical() {
            for (int cluster = 0; cluster < permutation.length; cluster++) {
                if (permutation[cluster] != cluster) {
                    return false;
                }
            }
            return true;
        }
    }

    /**
     * How often the Bayes predictor is right: the ceiling of every model.
     *
     * <p>Threading: immutable, if nobody changes the arrays.
     *
     * @param documents how many were asked about
     * @param remapped how many of them have permuted labels
     * @param right per number of demonstrations, from 0, in how many documents the likeliest label was the right one
     * @param rightRemapped the same, of the documents with permuted labels alone
     */
    public record Ceiling(int documents, int remapped, int[] right, int[] rightRemapped) {
        /**
         * Share of right answers.
         *
         * @param demonstrations how many came before
         * @param onlyRemapped whether documents with permuted labels alone count
         * @return between 0 and 1; not a number if there is no such document
         */
        public double accuracy(int demonstrations, boolean onlyRemapped) {
            return onlyRemapped ? (double) rightRemapped[demonstrations] / remapped : (double) right[demonstrations] / documents;
        }
    }

    /**
     * Checks the numbers.
     *
     * @throws InvalidArgumentException if one is out of range
     */
    public LabelMapping {
        range(clusters >= 2 && clusters <= MOST_CLUSTERS, "clusters", clusters, "2 to 6");
        range(wordsPerCluster >= 1 && wordsPerCluster <= 1 << 20, "wordsPerCluster", wordsPerCluster, "1 to 1048576");
        range(wordsPerExample >= 1 && wordsPerExample <= 1 << 20, "wordsPerExample", wordsPerExample, "1 to 1048576");
        range(noise >= 0 && noise <= 1, "noise", noise, "0 to 1");
        range(canonical >= 0 && canonical <= 1, "canonical", canonical, "0 to 1");
    }

    private static void range(boolean inside, String name, Number value, String expected) {
        if (!inside) {
            throw new InvalidArgumentException(name + ": " + value + ", expected " + expected);
        }
    }

    /**
     * Four clusters of 16 words, four words in an example, 10 % noise, the identity half the time.
     *
     * @return the corpus
     */
    public static LabelMapping standard() {
        return new LabelMapping(4, 16, 4, 0.1, 0.5);
    }

    /**
     * Size of the vocabulary.
     *
     * @return words, labels and the separator
     */
    public int vocabularySize() {
        return words() + clusters + 1;
    }

    private int words() {
        return clusters * wordsPerCluster;
    }

    /**
     * The token of a label.
     *
     * @param label from 0
     * @return its id
     */
    public int labelToken(int label) {
        return words() + label;
    }

    /**
     * The token that begins a sequence and closes each example.
     *
     * @return its id
     */
    public int separator() {
        return words() + clusters;
    }

    /**
     * Tokens of an example: words, label and separator.
     *
     * @return their number
     */
    public int exampleLength() {
        return wordsPerExample + 2;
    }

    /**
     * How many whole examples there is room for.
     *
     * @param context tokens, with the one that begins the sequence
     * @return their number
     */
    public int examplesIn(int context) {
        return (context - 1) / exampleLength();
    }

    /**
     * Which example's label stands at a place of a document.
     *
     * @param position index into {@link #tokens}
     * @return the example's index, or -1 where no label stands
     */
    public int labelledAt(int position) {
        return position % exampleLength() == exampleLength() - 1 ? position / exampleLength() : -1;
    }

    /**
     * A document.
     *
     * @param seed of all documents
     * @param index which, at least 0
     * @param examples in it
     * @return always the same for the same arguments; with fewer examples, a beginning of it
     * @throws InvalidArgumentException if index or examples is negative
     */
    public Document document(long seed, long index, int examples) {
        range(index >= 0, "index", index, "at least 0");
        range(examples >= 0, "examples", examples, "at least 0");
        // Mixed once more: seeds that differ by the generator's own increment would give the same draws, one place further.
        SplittableRandom random = new SplittableRandom(new SplittableRandom(new SplittableRandom(seed).nextLong() + index).nextLong());
        int[] permutation = new int[clusters];
        Arrays.setAll(permutation, i -> i);
        if (random.nextDouble() >= canonical) {
            for (int i = clusters - 1; i > 0; i--) {
                int j = random.nextInt(i + 1);
                int other = permutation[j];
                permutation[j] = permutation[i];
                permutation[i] = other;
            }
        }
        List<Example> drawn = new ArrayList<>(examples);
        for (int i = 0; i < examples; i++) {
            int cluster = random.nextInt(clusters);
            int[] words = new int[wordsPerExample];
            for (int w = 0; w < wordsPerExample; w++) {
                boolean any = random.nextDouble() < noise;
                words[w] = any ? random.nextInt(words()) : cluster * wordsPerCluster + random.nextInt(wordsPerCluster);
            }
            drawn.add(new Example(words, cluster, permutation[cluster]));
        }
        return new Document(permutation, List.copyOf(drawn));
    }

    /**
     * A document as a model reads it.
     *
     * @param document any
     * @return the separator, then its examples
     */
    public int[] tokens(Document document) {
        int[] tokens = new int[1 + document.examples().size() * exampleLength()];
        tokens[0] = separator();
        int at = 1;
        for (Example example : document.examples()) {
            System.arraycopy(example.words(), 0, tokens, at, wordsPerExample);
            tokens[at + wordsPerExample] = labelToken(example.label());
            tokens[at + wordsPerExample + 1] = separator();
            at += exampleLength();
        }
        return tokens;
    }

    /**
     * Batches of which every row is a document of its own, cut to length; every target counts.
     *
     * @param seed of the documents
     * @param rows of a batch
     * @param length of a row
     * @return the batches; batch i holds the documents {@code i rows} to {@code (i + 1) rows - 1}
     * @throws InvalidArgumentException if rows or length is less than 1
     */
    public Batches batches(long seed, int rows, int length) {
        range(rows >= 1, "rows", rows, "at least 1");
        range(length >= 1, "length", length, "at least 1");
        int examples = length / exampleLength() + 1;
        return new Batches() {
            @Override
            public int rows() {
                return rows;
            }

            @Override
            public int length() {
                return length;
            }

            @Override
            public void fill(long index, int[] ids, int[] targets) {
                SequentialBatches.check(index, Long.MAX_VALUE / rows - 1, ids, targets, rows * length);
                for (int row = 0; row < rows; row++) {
                    int[] tokens = tokens(document(seed, index * rows + row, examples));
                    System.arraycopy(tokens, 0, ids, row * length, length);
                    System.arraycopy(tokens, 1, targets, row * length, length);
                }
            }
        };
    }

    /**
     * The exact Bayes predictor: what somebody who knows the law of the corpus, but not the permutation, expects of a query's label.
     *
     * @param demonstrations the examples before; their clusters are not used
     * @param query words of the query
     * @return the probability of each label
     * @throws InvalidArgumentException if a word or a label is none of this corpus, or the examples are impossible under its law
     */
    public double[] posterior(List<Example> demonstrations, int[] query) {
        double[] logs = new double[clusters * clusters];
        for (Example demonstration : demonstrations) {
            int label = demonstration.label();
            range(label >= 0 && label < clusters, "label", label, "0 to " + (clusters - 1));
            double[] belief = clusterPosterior(demonstration.words());
            for (int cluster = 0; cluster < clusters; cluster++) {
                // Its label tells the cluster, if the permutation is known: these are the logs of what its words say for each.
                logs[cluster * clusters + label] += StrictMath.log(belief[cluster]);
            }
        }
        double[] belief = clusterPosterior(query);
        List<int[]> permutations = PERMUTATIONS.get(clusters);
        double[] weights = new double[permutations.size()];
        double most = Double.NEGATIVE_INFINITY;
        for (int p = 0; p < weights.length; p++) {
            int[] permutation = permutations.get(p);
            boolean identity = new Document(permutation, List.of()).isCanonical();
            weights[p] = StrictMath.log((identity ? canonical : 0) + (1 - canonical) / weights.length);
            for (int cluster = 0; cluster < clusters; cluster++) {
                weights[p] += logs[cluster * clusters + permutation[cluster]];
            }
            most = Math.max(most, weights[p]);
        }
        if (most == Double.NEGATIVE_INFINITY) {
            throw new InvalidArgumentException("demonstrations: impossible under every permutation, expected examples of one document");
        }
        double[] labels = new double[clusters];
        double total = 0;
        for (int p = 0; p < weights.length; p++) {
            double weight = StrictMath.exp(weights[p] - most);
            total += weight;
            for (int cluster = 0; cluster < clusters; cluster++) {
                labels[permutations.get(p)[cluster]] += weight * belief[cluster];
            }
        }
        for (int label = 0; label < clusters; label++) {
            labels[label] /= total;
        }
        return labels;
    }

    /** The probability of each cluster given the words; never 0 unless noise is. */
    private double[] clusterPosterior(int[] words) {
        range(words.length == wordsPerExample, "words", words.length, wordsPerExample + " of them");
        double[] belief = new double[clusters];
        Arrays.fill(belief, 1);
        for (int word : words) {
            range(word >= 0 && word < words(), "word", word, "0 to " + (words() - 1));
            double sum = 0;
            for (int cluster = 0; cluster < clusters; cluster++) {
                belief[cluster] *= (word / wordsPerCluster == cluster ? (1 - noise) / wordsPerCluster : 0) + noise / words();
                sum += belief[cluster];
            }
            range(sum > 0, "words", word, "words of one cluster, as there is no noise");
            // Scaled at every word, so that no number of words underflows.
            for (int cluster = 0; cluster < clusters; cluster++) {
                belief[cluster] /= sum;
            }
        }
        return belief;
    }

    /**
     * Asks the Bayes predictor about documents.
     *
     * @param seed of the documents
     * @param documents how many, from the first
     * @param shots most demonstrations
     * @return its answers after 0 to that many
     * @throws InvalidArgumentException if documents is less than 1 or shots is negative
     */
    public Ceiling ceiling(long seed, int documents, int shots) {
        range(documents >= 1, "documents", documents, "at least 1");
        range(shots >= 0, "shots", shots, "at least 0");
        int[] right = new int[shots + 1];
        int[] rightRemapped = new int[shots + 1];
        int remapped = 0;
        for (int i = 0; i < documents; i++) {
            Document document = document(seed, i, shots + 1);
            boolean permuted = !document.isCanonical();
            remapped += permuted ? 1 : 0;
            for (int n = 0; n <= shots; n++) {
                Example query = document.examples().get(n);
                double[] labels = posterior(document.examples().subList(0, n), query.words());
                int likeliest = 0;
                for (int label = 1; label < clusters; label++) {
                    likeliest = labels[label] > labels[likeliest] ? label : likeliest;
                }
                right[n] += likeliest == query.label() ? 1 : 0;
                rightRemapped[n] += permuted && likeliest == query.label() ? 1 : 0;
            }
        }
        return new Ceiling(documents, remapped, right, rightRemapped);
    }

    private static List<int[]> all(int clusters) {
        List<int[]> all = new ArrayList<>();
        all.add(new int[0]);
        for (int size = 0; size < clusters; size++) {
            List<int[]> longer = new ArrayList<>();
            for (int[] start : all) {
                for (int label = 0; label < clusters; label++) {
                    int next = label;
                    if (Arrays.stream(start).noneMatch(used -> used == next)) {
                        int[] extended = Arrays.copyOf(start, size + 1);
                        extended[size] = label;
                        longer.add(extended);
                    }
                }
            }
            all = longer;
        }
        return List.copyOf(all);
    }

    /**
     * The task of labelling an example after some others.
     *
     * @return the task, with the labels as answers
     */
    public TokenTask task() {
        List<int[]> answers = new ArrayList<>();
        List<String> names = new ArrayList<>();
        for (int label = 0; label < clusters; label++) {
            answers.add(new int[] {labelToken(label)});
            names.add("label " + label);
        }
        return new TokenTask("label-mapping", separator(), separator(), List.copyOf(answers), List.copyOf(names));
    }

    /**
     * Examples of a document for {@link #task}.
     *
     * @param examples of one document
     * @return their words and labels
     */
    public static List<TokenTask.Example> taskExamples(List<Example> examples) {
        return examples.stream().map(example -> new TokenTask.Example(example.words(), example.label())).toList();
    }
}
