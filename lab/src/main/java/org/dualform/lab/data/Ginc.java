package org.dualform.lab.data;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.function.Consumer;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.GincPrompt.Family;
import org.dualform.lab.icl.TokenTask;

/**
 * The GINC data of Xie et al. 2021 (arXiv:2111.02080): documents from a mixture of hidden Markov models, and prompts that ask a model
 * trained on them to find out from examples which HMM it is in. A table gives every pair of an entity and a slot a symbol; the HMMs share
 * it and the transitions between entities, and differ in the transitions between slots.
 *
 * <p>With {@link GincOptions#published} everything is what the published script ({@code generate_data.py} of
 * {@code p-lambda/incontext-learning}) makes from its own seeds, drawn in its order by {@link Mt19937}: the symbol table, the parameters,
 * the documents, the prompts and their labels. Facts about that order come from reading the script, and hmmlearn 0.2.5, whose sampler it
 * calls (two uniform numbers for every symbol, of which the second is lost, as a state shows one symbol only).
 *
 * <p>Symbols are numbered from 0, the delimiter. Token ids are one more, as the published tokenizer has {@code [endoftext]} as id 0.
 *
 * <p>Threading: immutable.
 */
public final class Ginc {
    static final long ENTITY_SEED = 1114;
    private static final long WORLD_SEED = 1111;
    private static final long PROMPT_SEED = 1114;
    private static final List<Integer> LENGTHS = List.of(3, 5, 8, 10);
    private static final List<Integer> SHOTS = List.of(0, 1, 2, 4, 8, 16, 32, 64, 128, 256);
    private final GincOptions options;
    private final int[][] table;
    private final List<GincHmm> hmms;
    /** Of every HMM, rows by {@link Mt19937#choiceTable}. */
    private final List<double[][]> steps;
    private final List<GincFilter> filters;
    /** Where the documents begin. */
    private final Mt19937 afterWorld;

    /**
     * Makes the world.
     *
     * @param options its sizes
     */
    public Ginc(GincOptions options) {
        this.options = options;
        Mt19937 random = new Mt19937(WORLD_SEED);
        table = new int[options.entities()][options.slots()];
        for (int[] row : table) {
            for (int slot = 0; slot < row.length; slot++) {
                row[slot] = (int) random.randint(1, options.symbols());
            }
        }
        for (int[] row : table) {
            row[0] = 0;
        }
        List<GincHmm> drawn = new ArrayList<>();
        for (int i = 0; i < options.hmms(); i++) {
            drawn.add(GincHmm.draw(options, random));
        }
        hmms = List.copyOf(drawn);
        afterWorld = random;
        int[] shown = new int[options.states()];
        Arrays.setAll(shown, state -> table[state / options.slots()][state % options.slots()]);
        steps = hmms.stream().map(hmm -> Arrays.stream(hmm.transition()).map(Mt19937::choiceTable).toArray(double[][]::new)).toList();
        filters = hmms.stream().map(hmm -> new GincFilter(hmm.transition(), shown, options.symbols())).toList();
    }

    /**
     * The sizes.
     *
     * @return as given
     */
    public GincOptions options() {
        return options;
    }

    /**
     * The symbol of an entity and a slot.
     *
     * @param entity from 0
     * @param slot from 0, which shows delimiters
     * @return its number
     */
    public int symbol(int entity, int slot) {
        return table[entity][slot];
    }

    /**
     * The hidden Markov models.
     *
     * @return those of the documents, then the others
     */
    public List<GincHmm> hmms() {
        return hmms;
    }

    /**
     * How the published files write a symbol: {@code /}, then {@code a} to {@code z}, then {@code ab}, {@code ac} and all other pairs of
     * different letters.
     *
     * @param symbol its number
     * @return its name
     */
    public static String name(int symbol) {
        if (symbol == 0) {
            return "/";
        }
        if (symbol <= 26) {
            return String.valueOf((char) ('a' + symbol - 1));
        }
        int first = (symbol - 27) / 25;
        int second = (symbol - 27) % 25;
        return "" + (char) ('a' + first) + (char) ('a' + (second < first ? second : second + 1));
    }

    /**
     * Documents to train on, one after the other as they are drawn.
     *
     * @param each told each document
     */
    public void training(Consumer<GincDocument> each) {
        draw(new Mt19937(afterWorld), options.trainingDocuments(), options.trainingLength(), each);
    }

    /**
     * Documents to validate on. They follow the training documents in the same random numbers, so those are drawn first.
     *
     * @param each told each document
     */
    public void validation(Consumer<GincDocument> each) {
        Mt19937 random = new Mt19937(afterWorld);
        draw(random, options.trainingDocuments(), options.trainingLength(), document -> {});
        draw(random, options.validationDocuments(), options.validationLength(), each);
    }

    private void draw(Mt19937 random, int count, int length, Consumer<GincDocument> each) {
        int family = options.inDistribution();
        double[][] starts = new double[family][];
        double[][][] rows = new double[family][][];
        for (int i = 0; i < family; i++) {
            starts[i] = Mt19937.runningSums(hmms.get(i).start());
            rows[i] = Arrays.stream(hmms.get(i).transition()).map(Mt19937::runningSums).toArray(double[][]::new);
        }
        for (int document = 0; document < count; document++) {
            int hmm = (int) random.randint(0, family);
            int[] states = new int[length];
            int[] symbols = new int[length];
            for (int t = 0; t < length; t++) {
                states[t] = random.chooseFrom(t == 0 ? starts[hmm] : rows[hmm][states[t - 1]]);
                random.rand();
                symbols[t] = shown(states[t]);
            }
            each.accept(new GincDocument(hmm, states, symbols));
        }
    }

    private int shown(int state) {
        return table[state / options.slots()][state % options.slots()];
    }

    /**
     * The training documents in tokens, one directly after the other as in the published training.
     *
     * @return their ids
     */
    public int[] trainingTokens() {
        int[] tokens = new int[options.trainingDocuments() * options.trainingLength()];
        training(new Concatenation(tokens));
        return tokens;
    }

    /**
     * The validation documents in tokens, one directly after the other.
     *
     * @return their ids
     */
    public int[] validationTokens() {
        int[] tokens = new int[options.validationDocuments() * options.validationLength()];
        validation(new Concatenation(tokens));
        return tokens;
    }

    /** Writes documents into an array. */
    private static final class Concatenation implements Consumer<GincDocument> {
        private final int[] tokens;
        private int size;

        Concatenation(int[] tokens) {
            this.tokens = tokens;
        }

        @Override
        public void accept(GincDocument document) {
            for (int symbol : document.symbols()) {
                tokens[size++] = token(symbol);
            }
        }
    }

    /**
     * Windows of the training documents in random order.
     *
     * @param seed of the order
     * @param rows of a batch
     * @param length of a row
     * @return the batches
     * @throws DataException if a row is longer than all documents
     * @throws InvalidArgumentException if rows or length is less than 1
     */
    public TextBatches batches(long seed, int rows, int length) throws DataException {
        return new TextBatches(trainingTokens(), rows, length, seed);
    }

    /**
     * Tokens a model must know.
     *
     * @return one more than the symbols, for the end of text
     */
    public int vocabularySize() {
        return options.symbols() + 1;
    }

    /**
     * The token of a symbol.
     *
     * @param symbol its number
     * @return its id
     */
    public static int token(int symbol) {
        return symbol + 1;
    }

    /**
     * A prompt in tokens, nothing before it: what the published evaluation gives the model.
     *
     * @param prompt any
     * @return the ids; the answer is the next
     */
    public static int[] tokens(GincPrompt prompt) {
        return Arrays.stream(prompt.symbols()).map(Ginc::token).toArray();
    }

    /**
     * The task that prompts are of, for an evaluator of any task: every symbol is an answer, and a delimiter stands at the beginning too,
     * which the published prompts do not have.
     *
     * @return the task
     */
    public TokenTask task() {
        List<int[]> answers = new ArrayList<>();
        List<String> names = new ArrayList<>();
        for (int symbol = 0; symbol < options.symbols(); symbol++) {
            answers.add(new int[] {token(symbol)});
            names.add(name(symbol));
        }
        return new TokenTask(options.name(), token(0), token(0), List.copyOf(answers), List.copyOf(names));
    }

    /**
     * A prompt's examples for {@link #task}.
     *
     * @param prompt any
     * @return its demonstrations with the symbols that they end with, then the question with the label
     */
    public static List<TokenTask.Example> taskExamples(GincPrompt prompt) {
        List<TokenTask.Example> examples = new ArrayList<>();
        int[] tokens = tokens(prompt);
        for (int i = 0; i <= prompt.shots(); i++) {
            int answer = prompt.begin(i) + prompt.length() - 1;
            int label = i < prompt.shots() ? prompt.symbols()[answer] : prompt.label();
            examples.add(new TokenTask.Example(Arrays.copyOfRange(tokens, prompt.begin(i), answer), label));
        }
        return examples;
    }

    /**
     * Prompts of one kind. All that come before in the published order are drawn to get there.
     *
     * @param family in or out of distribution
     * @param length symbols of an example: 3, 5, 8 or 10
     * @param shots demonstrations: 0 or a power of 2 to 256, if they fit the context
     * @return as many as the options say
     * @throws InvalidArgumentException if there are no such prompts
     */
    public List<GincPrompt> prompts(Family family, int length, int shots) {
        if (!LENGTHS.contains(length)) {
            throw new InvalidArgumentException("length: " + length + ", expected one of " + LENGTHS);
        }
        if (!SHOTS.contains(shots) || (length + 1) * shots > options.context()) {
            throw new InvalidArgumentException("shots: " + shots + ", expected one of " + SHOTS + ", of which each takes " + (length + 1)
                    + " of " + options.context() + " symbols");
        }
        return prompts().filter(block -> block.get(0).family() == family && block.get(0).length() == length
                && block.get(0).shots() == shots).findFirst().orElseThrow();
    }

    /**
     * All prompts in the published order: by length, family and number of demonstrations.
     *
     * @return one list per kind; drawn as they are asked for
     */
    public Stream<List<GincPrompt>> prompts() {
        List<GincPrompt> kinds = new ArrayList<>();
        for (int length : LENGTHS) {
            for (Family family : Family.values()) {
                for (int shots : SHOTS) {
                    if ((length + 1) * shots <= options.context()) {
                        kinds.add(new GincPrompt(family, length, shots, 0, 0, new int[0], 0, false));
                    }
                }
            }
        }
        Mt19937 random = new Mt19937(PROMPT_SEED);
        return StreamSupport.stream(new Spliterators.AbstractSpliterator<>(kinds.size(), Spliterator.ORDERED | Spliterator.NONNULL) {
            private int next;

            @Override
            public boolean tryAdvance(Consumer<? super List<GincPrompt>> action) {
                if (next == kinds.size()) {
                    return false;
                }
                GincPrompt kind = kinds.get(next++);
                List<GincPrompt> block = new ArrayList<>(options.prompts());
                for (int i = 0; i < options.prompts(); i++) {
                    block.add(kind.family() == Family.IN_DISTRIBUTION ? walk(kind.length(), kind.shots(), random)
                            : pattern(kind.length(), kind.shots(), random));
                }
                action.accept(block);
                return true;
            }
        }, false);
    }

    /** In distribution: every example starts with any entity in the prompt's slot and follows the HMM. */
    private GincPrompt walk(int length, int shots, Mt19937 random) {
        int hmm = (int) random.randint(0, options.inDistribution());
        int startSlot = (int) random.randint(1, options.slots());
        int[] symbols = new int[(shots + 1) * (length + 1)];
        for (int example = 0; example <= shots; example++) {
            int state = (int) random.randint(0, options.entities()) * options.slots() + startSlot;
            for (int t = 0; t < length; t++) {
                state = t == 0 ? state : random.chooseFrom(steps.get(hmm)[state]);
                symbols[example * (length + 1) + t] = shown(state);
            }
        }
        return prompt(Family.IN_DISTRIBUTION, length, shots, hmm, startSlot, symbols);
    }

    /** Out of distribution: any slots, and one entity for the whole example. */
    private GincPrompt pattern(int length, int shots, Mt19937 random) {
        int hmm = (int) random.randint(0, options.hmms() - options.inDistribution());
        int[] symbols = new int[(shots + 1) * (length + 1)];
        for (int example = 0; example <= shots; example++) {
            int[] slots = new int[length];
            for (int t = 0; t < length; t++) {
                slots[t] = (int) random.randint(1, options.slots());
            }
            int entity = (int) random.randint(0, options.entities());
            for (int t = 0; t < length; t++) {
                symbols[example * (length + 1) + t] = table[entity][slots[t]];
            }
        }
        return prompt(Family.OUT_OF_DISTRIBUTION, length, shots, hmm, -1, symbols);
    }

    /** Of examples with their delimiters; the last answer and delimiter go. */
    private GincPrompt prompt(Family family, int length, int shots, int hmm, int startSlot, int[] symbols) {
        int[] question = Arrays.copyOf(symbols, symbols.length - 2);
        GincFilter.Walk walk = filter(family, hmm).walk(startSlot < 0 ? uniform() : startingIn(startSlot));
        boolean possible = true;
        for (int i = question.length - (length - 1); i < question.length && possible; i++) {
            possible = walk.see(question[i]) > 0;
        }
        return new GincPrompt(family, length, shots, hmm, startSlot, question, possible ? likeliest(walk.next()) : 0, possible);
    }

    /**
     * The filter of an HMM.
     *
     * @param family of the HMM
     * @param hmm which of the family
     * @return without mixing
     */
    GincFilter filter(Family family, int hmm) {
        return filters.get(family == Family.IN_DISTRIBUTION ? hmm : options.inDistribution() + hmm);
    }

    /**
     * Any entity, in one slot.
     *
     * @param slot which
     * @return probabilities of first states
     */
    double[] startingIn(int slot) {
        double[] start = new double[options.states()];
        for (int entity = 0; entity < options.entities(); entity++) {
            start[entity * options.slots() + slot] = 1.0 / options.entities();
        }
        return start;
    }

    private double[] uniform() {
        double[] start = new double[options.states()];
        Arrays.fill(start, 1.0 / options.states());
        return start;
    }

    static int likeliest(double[] probabilities) {
        int best = 0;
        for (int i = 1; i < probabilities.length; i++) {
            best = probabilities[i] > probabilities[best] ? i : best;
        }
        return best;
    }
}
