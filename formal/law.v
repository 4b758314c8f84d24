(* The law of parsimony, for a machine to check: coqc formal/law.v, or make formal.

   A deep linear network has m layers W 0, ..., W (m - 1) of size d x d and a last layer V of size
   p x d, so L = m + 1 layers; the book counts them from 1. Gradient descent with step size eta and
   weight decay lam goes down |V W_(m-1) ... W_0 - Phi|^2 / 2.

   Reading: A *m B is a product of matrices, A^T a transpose, x *: A a multiple, x%:M = x *: 1%:M,
   t.+1 = t + 1. The algebra holds in every commutative ring; the start and the count of dimensions
   need a field. So nothing here is about real numbers, and nothing is rounded. No axiom is used. *)

From mathcomp Require Import all_ssreflect all_algebra.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory.
Local Open Scope ring_scope.

Section Network.

Variables (R : comRingType) (d p m : nat).
Implicit Types (W : nat -> 'M[R]_d) (V Phi : 'M[R]_(p, d)).

(* W_(l + k - 1) ... W_l *)
Fixpoint product W l k : 'M[R]_d :=
  if k is k'.+1 then W (l + k')%N *m product W l k' else 1%:M.

Definition below W l := product W 0 l.
Definition above W V l := V *m product W l.+1 (m - l.+1).
Definition end_to_end W V := V *m below W m.
Definition error W V Phi := end_to_end W V - Phi.

Definition gradient W V Phi l := (above W V l)^T *m error W V Phi *m (below W l)^T.
Definition gradient_last W V Phi := error W V Phi *m (below W m)^T.

(* --- 1. These are the gradients. A change E of one layer changes the end-to-end matrix by a term
   linear in E, and the loss to first order by the inner product of E and the gradient. *)

Definition inner a b (A B : 'M[R]_(a, b)) := \tr (A^T *m B).

Lemma product_add W l k j : product W l (k + j) = product W (l + k) j *m product W l k.
Proof.
elim: j => [|j IH]; first by rewrite addn0 mul1mx.
by rewrite addnS /= IH addnA mulmxA.
Qed.

Lemma product_eq W W' l k :
  (forall i, (l <= i < l + k)%N -> W i = W' i) -> product W l k = product W' l k.
Proof.
elim: k => //= k IH same; rewrite same ?leq_addr ?addnS ?ltnSn //.
by rewrite IH // => i /andP[a b]; apply: same; rewrite a addnS ltnS ltnW.
Qed.

Definition moved W l E i := if i == l then W i + E else W i.

Lemma end_to_end_moved W V l E : (l < m)%N ->
  end_to_end (moved W l E) V = end_to_end W V + above W V l *m E *m below W l.
Proof.
move=> lm; rewrite /end_to_end /above /below.
have cut X : product X 0 m = product X l.+1 (m - l.+1) *m (X l *m product X 0 l).
  by rewrite -{1}(subnKC lm) product_add.
rewrite (cut W) (cut (moved W l E)) {2}/moved eqxx mulmxDl.
rewrite (@product_eq (moved W l E) W l.+1); last first.
  by move=> i /andP[a _]; rewrite /moved gtn_eqF.
rewrite (@product_eq (moved W l E) W 0); last first.
  by move=> i /andP[_ b]; rewrite /moved ltn_eqF.
by rewrite !mulmxDr !mulmxA.
Qed.

Lemma gradient_first_order W V Phi l E : (l < m)%N ->
  inner (error W V Phi) (end_to_end (moved W l E) V - end_to_end W V)
  = inner (gradient W V Phi l) E.
Proof.
move=> lm; rewrite end_to_end_moved // addrC addKr /inner /gradient.
by rewrite !trmx_mul !trmxK !mulmxA mxtrace_mulC !mulmxA.
Qed.

Lemma gradient_last_first_order W V Phi E :
  inner (error W V Phi) (end_to_end W (V + E) - end_to_end W V)
  = inner (gradient_last W V Phi) E.
Proof.
rewrite /end_to_end mulmxDl addrC addKr /inner /gradient_last.
by rewrite !trmx_mul !trmxK mulmxA mxtrace_mulC mulmxA.
Qed.

(* --- 2. Chains. The n columns of v 0, ..., v m and of w are n chains at once. *)

Section Chain.

Variable n : nat.
Variables (v : nat -> 'M[R]_(d, n)) (w : 'M[R]_(p, n)).

(* Layer l takes v l to rho l times v l.+1, and back; the last one, v m to sigma times w. *)
Definition chain (rho : nat -> R) (sigma : R) W V :=
  [/\ forall l, (l < m)%N -> W l *m v l = rho l *: v l.+1,
      forall l, (l < m)%N -> (W l)^T *m v l.+1 = rho l *: v l,
      V *m v m = sigma *: w
    & V^T *m w = sigma *: v m].

(* The target sees the chain at neither end. *)
Definition unseen Phi := Phi *m v 0 = 0 /\ Phi^T *m w = 0.

Variables (rho : nat -> R) (sigma : R) (W : nat -> 'M[R]_d) (V Phi : 'M[R]_(p, d)).
Hypothesis on_chain : chain rho sigma W V.
Hypothesis target : unseen Phi.

Lemma product_chain l k : (l + k <= m)%N ->
  product W l k *m v l = (\prod_(l <= i < l + k) rho i) *: v (l + k).
Proof.
have [forth _ _ _] := on_chain.
elim: k => [|k IH] lm; first by rewrite addn0 big_geq // scale1r mul1mx.
rewrite addnS in lm *; rewrite /= -mulmxA IH 1?ltnW // -scalemxAr forth // scalerA.
by rewrite big_nat_recr ?leq_addr.
Qed.

Lemma product_chain_back l k : (l + k <= m)%N ->
  (product W l k)^T *m v (l + k) = (\prod_(l <= i < l + k) rho i) *: v l.
Proof.
have [_ back _ _] := on_chain.
elim: k => [|k IH] lm; first by rewrite addn0 big_geq // scale1r trmx1 mul1mx.
rewrite addnS in lm *; rewrite /= trmx_mul -mulmxA back // -scalemxAr IH 1?ltnW //.
by rewrite scalerA big_nat_recr ?leq_addr //= mulrC.
Qed.

(* What the other layers do to the chain, together. *)
Definition others l := sigma * \prod_(0 <= i < l) rho i * \prod_(l.+1 <= i < m) rho i.
Definition others_last := \prod_(0 <= i < m) rho i.

Lemma all_layers l : (l < m)%N -> sigma * others_last = others l * rho l.
Proof.
move=> lm; rewrite /others_last /others (@big_cat_nat _ _ _ l.+1) //= big_nat_recr //=.
by rewrite !mulrA [LHS]mulrAC.
Qed.

(* The error on the chain is the network alone. *)
Lemma error_chain : error W V Phi *m v 0 = (sigma * others_last) *: w.
Proof.
have [_ _ forth _] := on_chain; have [blind _] := target.
rewrite mulmxBl blind subr0 /end_to_end /below -mulmxA product_chain //=.
by rewrite -scalemxAr forth scalerA mulrC.
Qed.

Lemma error_chain_back : (error W V Phi)^T *m w = (sigma * others_last) *: v 0.
Proof.
have [_ _ _ back] := on_chain; have [_ blind] := target.
rewrite linearB /= mulmxBl blind subr0 trmx_mul -mulmxA back -scalemxAr.
by rewrite (@product_chain_back 0 m (leqnn m)) scalerA.
Qed.

(* The gradient takes the chain to the chain. *)
Lemma gradient_chain l : (l < m)%N ->
  gradient W V Phi l *m v l = (rho l * others l ^+ 2) *: v l.+1.
Proof.
move=> lm; have [_ _ _ back] := on_chain.
rewrite /gradient -!mulmxA (@product_chain_back 0 l (ltnW lm)) -!scalemxAr error_chain.
rewrite -!scalemxAr trmx_mul -mulmxA back -scalemxAr.
have := @product_chain_back l.+1 (m - l.+1); rewrite subnKC // => -> //.
rewrite !scalerA (all_layers lm) expr2 /others.
set a := \prod_(0 <= i < l) _; set b := \prod_(l.+1 <= i < m) _; set c := sigma * a * b.
have abc : a * (sigma * b) = c by rewrite mulrCA mulrA.
by rewrite -mulrA (mulrC a) -mulrA abc (mulrC c (rho l)) -mulrA.
Qed.

Lemma gradient_chain_back l : (l < m)%N ->
  (gradient W V Phi l)^T *m v l.+1 = (rho l * others l ^+ 2) *: v l.
Proof.
move=> lm; have [_ _ forth _] := on_chain.
rewrite /gradient !trmx_mul !trmxK -!mulmxA /above.
have := @product_chain l.+1 (m - l.+1); rewrite subnKC // => -> //.
rewrite -!scalemxAr forth -!scalemxAr error_chain_back -!scalemxAr.
rewrite (@product_chain 0 l (ltnW lm)) !scalerA (all_layers lm) expr2 /others.
set a := \prod_(0 <= i < l) _; set b := \prod_(l.+1 <= i < m) _; set c := sigma * a * b.
have cba : b * sigma * a = c by rewrite (mulrC b) mulrAC.
by rewrite mulrAC cba mulrA mulrC.
Qed.

Lemma gradient_last_chain :
  gradient_last W V Phi *m v m = (sigma * others_last ^+ 2) *: w.
Proof.
rewrite /gradient_last -mulmxA (@product_chain_back 0 m (leqnn m)) -scalemxAr error_chain.
by rewrite scalerA mulrC -mulrA expr2.
Qed.

Lemma gradient_last_chain_back :
  (gradient_last W V Phi)^T *m w = (sigma * others_last ^+ 2) *: v m.
Proof.
rewrite /gradient_last trmx_mul trmxK -mulmxA error_chain_back -scalemxAr.
by rewrite (@product_chain 0 m (leqnn m)) scalerA -mulrA expr2.
Qed.

End Chain.

(* --- 3. Training: gradient descent, and every method linear in past layers and gradients. *)

Lemma trmx_scale a b (x : R) (A : 'M[R]_(a, b)) : (x *: A)^T = x *: A^T.
Proof. by apply/matrixP=> i j; rewrite !mxE. Qed.

Lemma trmx_step a b (x y : R) (A B : 'M[R]_(a, b)) :
  (x *: A - y *: B)^T = x *: A^T - y *: B^T.
Proof. by apply/matrixP=> i j; rewrite !mxE. Qed.

Section Training.

Variables (n : nat) (v : nat -> 'M[R]_(d, n)) (w : 'M[R]_(p, n)) (Phi : 'M[R]_(p, d)).
Hypothesis target : unseen v w Phi.
Variables (W : nat -> nat -> 'M[R]_d) (V : nat -> 'M[R]_(p, d)).  (* at step t *)

Definition descent eta lam :=
  (forall t l, (l < m)%N ->
     W t.+1 l = (1 - eta * lam) *: W t l - eta *: gradient (W t) (V t) Phi l) /\
  (forall t, V t.+1 = (1 - eta * lam) *: V t - eta *: gradient_last (W t) (V t) Phi).

(* Layers may start at scales of their own. *)
Definition follows eta lam (rho : nat -> nat -> R) (sigma : nat -> R) :=
  (forall t l, (l < m)%N ->
     rho t.+1 l = rho t l * (1 - eta * lam - eta * others (rho t) (sigma t) l ^+ 2)) /\
  (forall t, sigma t.+1 = sigma t * (1 - eta * lam - eta * others_last (rho t) ^+ 2)).

Theorem law_of_scales eta lam rho sigma :
    descent eta lam -> follows eta lam rho sigma ->
    chain v w (rho 0%N) (sigma 0%N) (W 0) (V 0) ->
  forall t, chain v w (rho t) (sigma t) (W t) (V t).
Proof.
move=> [dW dV] [fr fs] start; elim=> // t here; have [forth back end_ back_end] := here.
have factor (x y : R) : (1 - eta * lam) * x - eta * (x * y) = x * (1 - eta * lam - eta * y).
  by rewrite mulrBr mulrC mulrCA.
split=> [l lm | l lm | |].
- rewrite dW // mulmxBl -!scalemxAl forth // (gradient_chain here target lm) !scalerA.
  by rewrite -scalerBl factor -fr.
- rewrite dW // trmx_step mulmxBl -!scalemxAl back //.
  by rewrite (gradient_chain_back here target lm) !scalerA -scalerBl factor -fr.
- rewrite dV mulmxBl -!scalemxAl end_ (gradient_last_chain here target) !scalerA.
  by rewrite -scalerBl factor -fs.
rewrite dV trmx_step mulmxBl -!scalemxAl back_end.
by rewrite (gradient_last_chain_back here target) !scalerA -scalerBl factor -fs.
Qed.

(* Case 1: all layers start at one scale, and there is one number for all. With L = m + 1 layers
   the exponent is 2 (L - 1). *)
Theorem law_case1 eta lam eps (rho : nat -> R) :
    descent eta lam -> rho 0%N = eps ->
    (forall t, rho t.+1 = rho t * (1 - eta * lam - eta * rho t ^+ (2 * m))) ->
    chain v w (fun=> eps) eps (W 0) (V 0) ->
  forall t, chain v w (fun=> rho t) (rho t) (W t) (V t).
Proof.
move=> run rho0 rec start; apply: (law_of_scales run (rho := fun t _ => rho t)); last by rewrite rho0.
split=> [t l lm | t]; rewrite rec mulnC exprM; last by rewrite /others_last prodr_const_nat subn0.
by rewrite /others !prodr_const_nat subn0 -exprS -exprD subnKC.
Qed.

(* Case 2: the last layer starts with zero on the chain, and weight decay alone moves the others. *)
Theorem law_case2 eta lam eps :
    descent eta lam -> chain v w (fun=> eps) 0 (W 0) (V 0) ->
  forall t, chain v w (fun=> eps * (1 - eta * lam) ^+ t) 0 (W t) (V t).
Proof.
move=> run start.
apply: (law_of_scales run (rho := fun t _ => eps * (1 - eta * lam) ^+ t) (sigma := fun=> 0)).
  split=> [t l lm | t]; last by rewrite mul0r.
  by rewrite /others !mul0r expr2 mulr0 mulr0 subr0 exprSr mulrA.
by rewrite expr0 mulr1.
Qed.

(* Momentum, averages, step sizes of each layer and step: a and b of layer l, now t, then s; l = m
   is the last layer. *)
Definition linear_method (a b : nat -> nat -> nat -> R) :=
  (forall t l, (l < m)%N -> W t.+1 l =
     \sum_(s < t.+1) (a l t s *: W s l - b l t s *: gradient (W s) (V s) Phi l)) /\
  (forall t, V t.+1 =
     \sum_(s < t.+1) (a m t s *: V s - b m t s *: gradient_last (W s) (V s) Phi)).

Theorem law_of_linear_methods a b (rho : nat -> nat -> R) (sigma : nat -> R) :
    linear_method a b ->
    (forall t l, (l < m)%N -> rho t.+1 l = \sum_(s < t.+1)
       (a l t s * rho s l - b l t s * (rho s l * others (rho s) (sigma s) l ^+ 2))) ->
    (forall t, sigma t.+1 = \sum_(s < t.+1)
       (a m t s * sigma s - b m t s * (sigma s * others_last (rho s) ^+ 2))) ->
    chain v w (rho 0%N) (sigma 0%N) (W 0) (V 0) ->
  forall t, chain v w (rho t) (sigma t) (W t) (V t).
Proof.
move=> [dW dV] fr fs start t.
elim/ltn_ind: t => -[|t] // before.
have now (s : 'I_t.+1) : chain v w (rho s) (sigma s) (W s) (V s) by apply: before.
split=> [l lm | l lm | |].
- rewrite dW // fr // mulmx_suml scaler_suml; apply: eq_bigr => s _; have [forth _ _ _] := now s.
  rewrite mulmxBl -!scalemxAl forth // (gradient_chain (now s) target lm) !scalerA.
  by rewrite -scalerBl.
- rewrite dW // fr // linear_sum /= mulmx_suml scaler_suml; apply: eq_bigr => s _.
  have [_ back _ _] := now s; rewrite trmx_step mulmxBl -!scalemxAl back //.
  by rewrite (gradient_chain_back (now s) target lm) !scalerA -scalerBl.
- rewrite dV fs mulmx_suml scaler_suml; apply: eq_bigr => s _; have [_ _ end_ _] := now s.
  rewrite mulmxBl -!scalemxAl end_ (gradient_last_chain (now s) target) !scalerA.
  by rewrite -scalerBl.
rewrite dV fs linear_sum /= mulmx_suml scaler_suml; apply: eq_bigr => s _.
have [_ _ _ back] := now s; rewrite trmx_step mulmxBl -!scalemxAl back.
by rewrite (gradient_last_chain_back (now s) target) !scalerA -scalerBl.
Qed.

End Training.

(* Heavy ball: M is the velocity of one layer and G its gradients. *)
Lemma momentum_is_linear a b beta eta (X M G : nat -> 'M[R]_(a, b)) :
    M 0%N = 0 -> (forall t, M t.+1 = beta *: M t + G t) ->
    (forall t, X t.+1 = X t - eta *: M t.+1) ->
  forall t, X t.+1 =
    \sum_(s < t.+1) ((val s == t)%:R *: X s - (eta * beta ^+ (t - s)) *: G s).
Proof.
move=> M0 recM recX t; rewrite sumrB recX; congr (_ - _).
  rewrite big_ord_recr /= eqxx scale1r big1 ?add0r // => s _.
  by rewrite ltn_eqF // scale0r.
transitivity (eta *: \sum_(s < t.+1) beta ^+ (t - s) *: G s); last first.
  by rewrite scaler_sumr; apply: eq_bigr => s _; rewrite scalerA.
congr (_ *: _); elim: t => [|t IH]; rewrite recM.
  by rewrite M0 scaler0 add0r big_ord1 subnn expr0 scale1r.
rewrite IH [RHS]big_ord_recr /= subnn expr0 scale1r scaler_sumr; congr (_ + _).
by apply: eq_bigr => s _; rewrite scalerA -exprS subSn // -ltnS.
Qed.

End Network.

(* --- 4. The block form, and the core as a network of its own. *)

Section Blocks.

Variables (R : comRingType) (d p m k n : nat).
Variables (base : nat -> 'M[R]_(d, k + n)) (top : 'M[R]_(p, k + n)).

(* Square orthogonal matrices; the core's k columns come first. *)
Definition orthogonal a b (A : 'M[R]_(a, b)) := A^T *m A = 1%:M /\ A *m A^T = 1%:M.
Hypothesis base_orth : forall l, (l <= m)%N -> orthogonal (base l).
Hypothesis top_orth : orthogonal top.

Variables (rho : nat -> R) (sigma : R) (W : nat -> 'M[R]_d) (V Phi : 'M[R]_(p, d)).
Hypothesis on_chain : chain m (fun l => rsubmx (base l)) (rsubmx top) rho sigma W V.
Hypothesis target : unseen (fun l => rsubmx (base l)) (rsubmx top) Phi.

(* What is seen of a matrix between the cores of two bases. *)
Definition core_of a b (B : 'M[R]_(a, k + n)) (C : 'M[R]_(b, k + n)) (A : 'M[R]_(a, b)) :=
  (lsubmx B)^T *m A *m lsubmx C.

Definition blocks (A : 'M[R]_k) (x : R) : 'M[R]_(k + n) := block_mx A 0 0 x%:M.

Lemma blocks_mul A B x y : blocks A x *m blocks B y = blocks (A *m B) (x * y).
Proof. by rewrite /blocks mulmx_block !mulmx0 !mul0mx !addr0 add0r -scalar_mxM. Qed.

Lemma blocks_tr A x : (blocks A x)^T = blocks A^T x.
Proof. by rewrite /blocks tr_block_mx !trmx0 tr_scalar_mx. Qed.

Lemma blocks_sub A B x y : blocks A x - blocks B y = blocks (A - B) (x - y).
Proof.
by rewrite /blocks opp_block_mx add_block_mx !oppr0 !addr0 raddfB.
Qed.

Lemma columns a (B : 'M[R]_(a, k + n)) : orthogonal B ->
  [/\ (lsubmx B)^T *m lsubmx B = 1%:M, (lsubmx B)^T *m rsubmx B = 0,
      (rsubmx B)^T *m lsubmx B = 0 & (rsubmx B)^T *m rsubmx B = 1%:M].
Proof.
case=> BB _; move: BB; rewrite -{1 2}(hsubmxK B) tr_row_mx mul_col_row (scalar_mx_block k n).
by case/eq_block_mx.
Qed.

Lemma block_form a b (B : 'M[R]_(a, k + n)) (C : 'M[R]_(b, k + n)) A x :
    orthogonal B -> orthogonal C ->
    A *m rsubmx C = x *: rsubmx B -> A^T *m rsubmx B = x *: rsubmx C ->
  B^T *m A *m C = blocks (core_of B C A) x.
Proof.
move=> oB oC forth back; have [_ B12 _ B22] := columns oB; have [_ _ C21 _] := columns oC.
rewrite -{1}(hsubmxK B) -{1}(hsubmxK C) tr_row_mx mul_col_mx mul_col_row.
rewrite -!mulmxA forth -!scalemxAr B12 B22 scaler0 scalemx1 !mulmxA /blocks; congr block_mx.
by rewrite -[A]trmxK -trmx_mul back linearZ /= -scalemxAl C21 scaler0.
Qed.

Lemma from_blocks a b (B : 'M[R]_(a, k + n)) (C : 'M[R]_(b, k + n)) A D :
  orthogonal B -> orthogonal C -> B^T *m A *m C = D -> A = B *m D *m C^T.
Proof. by move=> [_ BB] [_ CC] <-; rewrite !mulmxA BB mul1mx -mulmxA CC mulmx1. Qed.

(* The theorem as the book writes it, for each layer. *)
Theorem layer_blocks l : (l < m)%N ->
  (base l.+1)^T *m W l *m base l = blocks (core_of (base l.+1) (base l) (W l)) (rho l).
Proof. by have [forth back _ _] := on_chain; move=> lm; apply: block_form; auto using ltnW. Qed.

Theorem last_blocks : top^T *m V *m base m = blocks (core_of top (base m) V) sigma.
Proof. by have [_ _ forth back] := on_chain; apply: block_form; auto. Qed.

Definition core l := core_of (base l.+1) (base l) (W l).
Definition core_last := core_of top (base m) V.
Definition core_target := core_of top (base 0) Phi.

Lemma layer_from_blocks l : (l < m)%N ->
  W l = base l.+1 *m blocks (core l) (rho l) *m (base l)^T.
Proof. by move=> lm; apply: from_blocks; auto using ltnW; apply: layer_blocks. Qed.

Lemma last_from_blocks : V = top *m blocks core_last sigma *m (base m)^T.
Proof. by apply: from_blocks; auto; apply: last_blocks. Qed.

Lemma target_from_blocks : Phi = top *m blocks core_target 0 *m (base 0)^T.
Proof.
have [blind blind_back] := target.
by apply: from_blocks; auto; apply: block_form; rewrite ?scale0r; auto.
Qed.

Lemma joint a b c (B : 'M[R]_(a, k + n)) (C : 'M[R]_(b, k + n)) (D : 'M[R]_(c, k + n)) A E x y :
    orthogonal C ->
  B *m blocks A x *m C^T *m (C *m blocks E y *m D^T) = B *m blocks (A *m E) (x * y) *m D^T.
Proof.
by case=> CC _; rewrite -blocks_mul !mulmxA -(mulmxA _ C^T C) CC mulmx1.
Qed.

Lemma turned a b (B : 'M[R]_(a, k + n)) (C : 'M[R]_(b, k + n)) A x :
  (B *m blocks A x *m C^T)^T = C *m blocks A^T x *m B^T.
Proof. by rewrite !trmx_mul trmxK blocks_tr mulmxA. Qed.

Lemma core_of_blocks a b (B : 'M[R]_(a, k + n)) (C : 'M[R]_(b, k + n)) A x :
  orthogonal B -> orthogonal C -> core_of B C (B *m blocks A x *m C^T) = A.
Proof.
move=> oB oC; have [B11 B12 _ _] := columns oB; have [C11 _ C21 _] := columns oC.
rewrite /core_of -{2}(hsubmxK B) -{1}(hsubmxK C) tr_row_mx /blocks !mulmxA mul_mx_row B11 B12.
rewrite mul_row_block !mul1mx !mul0mx !addr0 -mulmxA mul_col_mx C11 C21.
by rewrite mul_row_col mulmx1 mulmx0 addr0.
Qed.

Lemma product_blocks l j : (l + j <= m)%N ->
  product W l j
  = base (l + j) *m blocks (product core l j) (\prod_(l <= i < l + j) rho i) *m (base l)^T.
Proof.
elim: j => [|j IH] lm.
  rewrite addn0 in lm *; have [_ BB] := base_orth lm; rewrite big_geq //= /blocks -(scalar_mx_block k n).
  by rewrite mulmx1 BB.
rewrite addnS in lm *; rewrite /= IH 1?ltnW // (layer_from_blocks lm) joint; auto using ltnW.
by rewrite big_nat_recr ?leq_addr //= [in RHS]mulrC.
Qed.

(* The end-to-end matrix is the core's, expanded, and the product of the numbers outside it. *)
Theorem end_to_end_blocks :
  end_to_end m W V = lsubmx top *m end_to_end m core core_last *m (lsubmx (base 0))^T
                   + (sigma * others_last m rho) *: (rsubmx top *m (rsubmx (base 0))^T).
Proof.
rewrite /end_to_end /below (@product_blocks 0 m (leqnn m)) {1}last_from_blocks joint; auto.
rewrite -{1}(hsubmxK top) -{1}(hsubmxK (base 0)) tr_row_mx /blocks mul_row_block.
by rewrite !mulmx0 addr0 add0r mul_row_col mul_mx_scalar scalemxAl.
Qed.

Lemma error_blocks : error m W V Phi = top
  *m blocks (error m core core_last core_target) (sigma * others_last m rho) *m (base 0)^T.
Proof.
rewrite /error /end_to_end /below (@product_blocks 0 m (leqnn m)) {1}last_from_blocks joint; auto.
rewrite {1}target_from_blocks -mulmxBl -mulmxBr blocks_sub subr0 //.
Qed.

(* The core's gradients are the gradients of the core. *)
Theorem core_gradient l : (l < m)%N ->
  core_of (base l.+1) (base l) (gradient m W V Phi l) = gradient m core core_last core_target l.
Proof.
move=> lm; 
have [y ->] : exists y, gradient m W V Phi l
    = base l.+1 *m blocks (gradient m core core_last core_target l) y *m (base l)^T.
  rewrite /gradient /above error_blocks /below (@product_blocks 0 l (ltnW lm)).
  have := @product_blocks l.+1 (m - l.+1); rewrite subnKC // => -> //.
  by rewrite last_from_blocks joint ?turned ?joint; auto; eexists.
by apply: core_of_blocks; auto using ltnW.
Qed.

Theorem core_gradient_last :
  core_of top (base m) (gradient_last m W V Phi) = gradient_last m core core_last core_target.
Proof.
rewrite /gradient_last error_blocks /below (@product_blocks 0 m (leqnn m)) turned joint; auto.
by apply: core_of_blocks; auto using ltnW.
Qed.

End Blocks.

Arguments blocks {R k n} A x.

Section Core.

Variables (R : comRingType) (d p m k n : nat).
Variables (base : nat -> 'M[R]_(d, k + n)) (top : 'M[R]_(p, k + n)) (Phi : 'M[R]_(p, d)).
Hypothesis base_orth : forall l, (l <= m)%N -> orthogonal (base l).
Hypothesis top_orth : orthogonal top.
Let v l := rsubmx (base l).
Hypothesis target : unseen v (rsubmx top) Phi.
Variables (W : nat -> nat -> 'M[R]_d) (V : nat -> 'M[R]_(p, d)) (eta lam : R).

Lemma core_step a b (B : 'M[R]_(a, k + n)) (C : 'M[R]_(b, k + n)) x y A G :
  core_of B C (x *: A - y *: G) = x *: core_of B C A - y *: core_of B C G.
Proof. by rewrite /core_of mulmxBr mulmxBl -!scalemxAr -!scalemxAl. Qed.

(* Where the wide network descends, its core does, as a network of width k, to its own target. *)
Theorem core_descends (rho : nat -> nat -> R) (sigma : nat -> R) :
    descent m Phi W V eta lam -> (forall t, chain m v (rsubmx top) (rho t) (sigma t) (W t) (V t)) ->
  descent m (core_target base top Phi)
    (fun t => core base (W t)) (fun t => core_last m base top (V t)) eta lam.
Proof.
move=> [dW dV] here; split=> [t l lm | t].
  rewrite {1}/core dW // core_step -(core_gradient base_orth top_orth (here t) target lm) //.
by rewrite {1}/core_last dV core_step -(core_gradient_last base_orth top_orth (here t) target).
Qed.

End Core.

(* --- 5. The start: which directions begin a chain, and how many. *)

Section Start.

Variables (F : fieldType) (d p m : nat).
Variables (W : nat -> 'M[F]_d) (V Phi : 'M[F]_(p, d)) (eps : F).
Hypothesis eps0 : eps != 0.
Hypothesis W_orth : forall l, (l < m)%N -> (W l)^T *m W l = (eps ^+ 2)%:M.

Let A := end_to_end m W V.

Section Directions.

Variables (n : nat) (x : 'M[F]_(d, n)).
Hypothesis blind : Phi *m x = 0.
Hypothesis blind_back : Phi^T *m (A *m x) = 0.

Definition sent l := eps^-1 ^+ l *: (product W 0 l *m x).

Lemma sent_forth l : W l *m sent l = eps *: sent l.+1.
Proof. by rewrite /sent /= -scalemxAr scalerA exprS mulrA divff // mul1r mulmxA. Qed.

Lemma sent_back l : (l < m)%N -> (W l)^T *m sent l.+1 = eps *: sent l.
Proof.
move=> lm; rewrite /sent /= -scalemxAr !mulmxA W_orth // mul_scalar_mx -scalemxAl !scalerA.
by rewrite exprS mulrAC expr2 !mulrA mulVf // mul1r.
Qed.

Lemma sent_end : V *m sent m = eps^-1 ^+ m *: (A *m x).
Proof. by rewrite /sent -scalemxAr mulmxA /A /end_to_end /below. Qed.

(* The chain is an isometry from layer to layer. *)
Lemma sent_isometry l : (l < m)%N -> (sent l.+1)^T *m sent l.+1 = (sent l)^T *m sent l.
Proof.
move=> lm; have E : sent l.+1 = eps^-1 *: (W l *m sent l).
  by rewrite sent_forth scalerA mulVf // scale1r.
rewrite {1}E trmx_scale trmx_mul -scalemxAl -mulmxA sent_back //.
by rewrite -scalemxAr scalerA mulVf // scale1r.
Qed.

Theorem start_case1 (w := eps^-1 *: (V *m sent m)) :
  V^T *m V = (eps ^+ 2)%:M ->
  chain m sent w (fun=> eps) eps W V /\ unseen sent w Phi.
Proof.
move=> V_orth; split; last first.
  split; first by rewrite /sent expr0 scale1r mul1mx.
  by rewrite /w sent_end -!scalemxAr blind_back !scaler0.
split=> [l _ | l lm | |]; [exact: sent_forth | exact: sent_back | |].
  by rewrite /w scalerA divff // scale1r.
by rewrite /w -scalemxAr mulmxA V_orth mul_scalar_mx scalerA expr2 mulrA mulVf // mul1r.
Qed.

(* The target has full row rank, as where the last layer has r rows: the chain ends in zero. *)
Theorem start_case2 : row_free Phi ->
  chain m sent 0 (fun=> eps) 0 W V /\ unseen sent (0 : 'M_(p, n)) Phi.
Proof.
move=> free; have end0 : A *m x = 0.
  apply: trmx_inj; apply: (row_free_inj free); rewrite trmx0 mul0mx -[Phi]trmxK -trmx_mul.
  by rewrite blind_back trmx0.
split; last by split; [rewrite /sent expr0 scale1r mul1mx | rewrite mulmx0].
split=> [l _ | l lm | |]; [exact: sent_forth | exact: sent_back | |].
  by rewrite sent_end end0 !scaler0.
by rewrite mulmx0 scale0r.
Qed.

End Directions.

(* S = ker Phi, met with ker Phi^T A; its elements are rows here. *)
Definition S := (kermx Phi^T :&: kermx (A^T *m Phi))%MS.

Lemma in_S n (x : 'M[F]_(d, n)) :
  (x^T <= S)%MS = (Phi *m x == 0) && (Phi^T *m (A *m x) == 0).
Proof.
rewrite sub_capmx !sub_kermx -trmx_mul trmx_eq0; congr (_ && _).
by rewrite mulmxA -trmx_mul -{1}[Phi]trmxK -trmx_mul trmx_eq0.
Qed.

Theorem dimension : (d - 2 * \rank Phi <= \rank S)%N.
Proof.
set r := \rank Phi; set r' := \rank (A^T *m Phi).
have r'r : (r' <= r)%N by apply: mxrankM_maxr.
have rd : (r <= d)%N by apply: rank_leq_col.
have := mxrank_sum_cap (kermx Phi^T) (kermx (A^T *m Phi)).
rewrite !mxrank_ker mxrank_tr -/r -/r' -/S => sum.
have := rank_leq_col (kermx Phi^T + kermx (A^T *m Phi))%MS.
rewrite -(leq_add2r (\rank S)) sum => all.
rewrite leq_subLR -(leq_add2l d) mul2n -addnn.
have -> : (d + d = (d - r + (d - r')) + (r + r'))%N.
  by rewrite addnACA !subnK // (leq_trans r'r).
by rewrite (leq_trans (leq_add all (leq_add (leqnn r) r'r))) // -addnA (addnC (\rank S)).
Qed.

(* A basis that a layer carries on stays orthogonal, and between the two the core starts at eps. *)
Lemma carried_base k n (base : nat -> 'M[F]_(d, k + n)) l : (l < m)%N ->
  orthogonal (base l) -> base l.+1 = eps^-1 *: (W l *m base l) -> core base W l = eps%:M.
Proof.
move=> lm ob next; have [B11 _ _ _] := columns ob.
have left : lsubmx (W l *m base l) = W l *m lsubmx (base l).
  by rewrite -{1}(hsubmxK (base l)) mul_mx_row row_mxKl.
rewrite /core /core_of next linearZ /= trmx_scale left trmx_mul -!scalemxAl.
rewrite -(mulmxA _ (W l)^T) W_orth // mul_mx_scalar -scalemxAl B11 scalerA.
by rewrite expr2 mulrA mulVf // mul1r scalemx1.
Qed.

Lemma carried_orthogonal c e (X : 'M[F]_(c, d)) (C : 'M[F]_(d, e)) :
    X^T *m X = (eps ^+ 2)%:M -> X *m X^T = (eps ^+ 2)%:M -> orthogonal C ->
  orthogonal (eps^-1 *: (X *m C)).
Proof.
move=> XX XX' [CC CC']; have unit : eps^-1 * eps^-1 * eps ^+ 2 = 1.
  by rewrite expr2 mulrA -(mulrA eps^-1) mulVf // mulr1 mulVf.
split; rewrite trmx_scale trmx_mul -!scalemxAl -!scalemxAr !scalerA.
  by rewrite -mulmxA (mulmxA X^T) XX mul_scalar_mx -scalemxAr CC scalerA unit scale1r.
by rewrite -mulmxA (mulmxA C) CC' mul1mx XX' scale_scalar_mx unit.
Qed.

Lemma orthogonal_back (X : 'M[F]_d) : X^T *m X = (eps ^+ 2)%:M -> X *m X^T = (eps ^+ 2)%:M.
Proof.
move=> XX; have : (eps ^+ 2)^-1 *: X *m X^T = 1%:M.
  by apply: mulmx1C; rewrite -scalemxAr XX scale_scalar_mx mulVf // expf_neq0.
by rewrite -scalemxAl => /(canRL (scalerK _)) ->; rewrite ?invr_eq0 ?expf_neq0 // invrK scalemx1.
Qed.

End Start.

(* --- 6. The law of parsimony, with bases that are carried along from the first. *)

Section Law.

Variables (F : fieldType) (d p m k n : nat) (Phi : 'M[F]_(p, d)) (eps eta lam : F).
Variables (W : nat -> nat -> 'M[F]_d) (V : nat -> 'M[F]_(p, d)) (B : 'M[F]_(d, k + n)).
Hypothesis eps0 : eps != 0.
Hypothesis W_orth : forall l, (l < m)%N -> (W 0 l)^T *m W 0 l = (eps ^+ 2)%:M.
Hypothesis run : descent m Phi W V eta lam.
Hypothesis B_orth : orthogonal B.

(* The last n columns of B lie in S. *)
Hypothesis blind : Phi *m rsubmx B = 0.
Hypothesis blind_back : Phi^T *m (end_to_end m (W 0%N) (V 0%N) *m rsubmx B) = 0.

Definition base l := sent (W 0%N) eps B l.

Lemma base_orthogonal l : (l <= m)%N -> orthogonal (base l).
Proof.
elim: l => [|l IH] lm; first by rewrite /base /sent expr0 scale1r mul1mx.
have -> : base l.+1 = eps^-1 *: (W 0%N l *m base l).
  by rewrite /base sent_forth // scalerA mulVf // scale1r.
have WW := W_orth lm; apply: carried_orthogonal (IH (ltnW lm)) => //.
exact: orthogonal_back.
Qed.

Lemma base_sent l : rsubmx (base l) = sent (W 0%N) eps (rsubmx B) l.
Proof. by rewrite /base /sent linearZ /= -{1}(hsubmxK B) mul_mx_row row_mxKr. Qed.

Theorem law_of_parsimony (rho : nat -> F) (top : 'M[F]_(p, k + n)) :
    (V 0%N)^T *m V 0%N = (eps ^+ 2)%:M -> V 0%N *m (V 0%N)^T = (eps ^+ 2)%:M ->
    top = eps^-1 *: (V 0%N *m base m) ->
    rho 0%N = eps -> (forall t, rho t.+1 = rho t * (1 - eta * lam - eta * rho t ^+ (2 * m))) ->
  [/\ orthogonal top,
      forall t l, (l < m)%N -> (base l.+1)^T *m W t l *m base l
        = blocks (core base (W t) l) (rho t),
      forall t, top^T *m V t *m base m = blocks (core_last m base top (V t)) (rho t),
      forall t, end_to_end m (W t) (V t)
        = lsubmx top *m end_to_end m (core base (W t)) (core_last m base top (V t))
            *m (lsubmx (base 0))^T
          + rho t ^+ m.+1 *: (rsubmx top *m (rsubmx (base 0))^T)
    & descent m (core_target base top Phi) (fun t => core base (W t))
        (fun t => core_last m base top (V t)) eta lam].
Proof.
move=> VV VV' topE rho0 rec.
have topR : rsubmx top = eps^-1 *: (V 0%N *m sent (W 0%N) eps (rsubmx B) m).
  by rewrite topE linearZ /= -base_sent -{1}(hsubmxK (base m)) mul_mx_row row_mxKr.
have [start0 [unseen0 unseen1]] := start_case1 eps0 W_orth blind blind_back VV.
have target : unseen (fun l => rsubmx (base l)) (rsubmx top) Phi.
  by rewrite /unseen base_sent topR.
have start : chain m (fun l => rsubmx (base l)) (rsubmx top) (fun=> eps) eps (W 0%N) (V 0%N).
  by have [f g e h] := start0; split=> *; rewrite ?base_sent ?topR; auto.
have here := law_case1 target run rho0 rec start.
have top_orth : orthogonal top.
  by rewrite topE; apply: carried_orthogonal => //; apply: base_orthogonal.
split=> // [t l lm | t | t |].
- exact: (layer_blocks base_orthogonal (here t)).
- exact: (last_blocks base_orthogonal top_orth (here t)).
- rewrite {1}(end_to_end_blocks base_orthogonal top_orth (here t)).
  by rewrite /others_last prodr_const_nat subn0 -exprS.
exact: (core_descends base_orthogonal top_orth target run here).
Qed.

(* Case 2, for a target of full row rank: the last layer sees nothing of the rest. *)
Theorem law_of_parsimony_case2 : row_free Phi ->
  forall t,
    (forall l, (l < m)%N -> (base l.+1)^T *m W t l *m base l
       = blocks (core base (W t) l) (eps * (1 - eta * lam) ^+ t)) /\
    V t *m rsubmx (base m) = 0.
Proof.
move=> free; have [[f g e h] [unseen0 unseen1]] := start_case2 eps0 W_orth blind blind_back free.
have target : unseen (fun l => rsubmx (base l)) 0 Phi by rewrite /unseen base_sent.
have start : chain m (fun l => rsubmx (base l)) 0 (fun=> eps) 0 (W 0%N) (V 0%N).
  by split=> *; rewrite ?base_sent; auto.
move=> t; have [forth back end_ _] := law_case2 target run start t.
split=> [l lm|]; last by rewrite end_ scaler0.
by apply: block_form; auto using base_orthogonal, ltnW.
Qed.

End Law.
